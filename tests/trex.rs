//! Promise: the TRex profiles ask for what they are said to: frames, addresses, ports, rates. Held
//! against a stub of TRex's API (`trex/check`), which refuses names that it does not have. TRex
//! itself needs NICs, and was not run.

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Command, Stdio};

    #[test]
    fn the_profiles_ask_for_what_they_say() {
        let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("trex/check/profiles.py");
        let output = Command::new("python3")
            .arg(check)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        // unittest is content with finding nothing, too.
        assert!(said.contains("\nRan 9 tests in "), "{said}");
    }
}
