//! Compiles the steering program (`bpf/steer.bpf.c`) with clang, for `src/xsk/program.rs` to embed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const SOURCE: &str = "bpf/steer.bpf.c";

const CURE: &str =
    "building ringgate-dataplane needs clang, llvm and the libbpf and kernel headers.
On Debian and Ubuntu: apt-get install clang llvm libbpf-dev linux-libc-dev
A clang of another name is taken from the environment variable CLANG.";

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed={SOURCE}");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CLANG");
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(found) => {
            eprintln!("cannot compile {SOURCE}: {found}\n\n{CURE}");
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    let directory = env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?;
    let object = PathBuf::from(directory).join("steer.bpf.o");
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let mut command = Command::new(&clang);
    // -g: the map definitions are read from BTF.
    command.args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf"]);
    // Debian keeps <asm/types.h> in a directory of the architecture, which clang does not search
    // for the target bpf.
    let multiarch = format!("/usr/include/{}-linux-gnu", env::consts::ARCH);
    if Path::new(&multiarch).is_dir() {
        command.arg("-I").arg(&multiarch);
    }
    command.arg("-c").arg(SOURCE).arg("-o").arg(&object);
    let output = command
        .output()
        .map_err(|error| format!("{} does not start: {error}", clang.to_string_lossy()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?} ended with {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    ))
}
