//! A packet's way, as `explain` and `trace` print it.

use std::fmt::Write as _;

use serde_json::Value;

/// Bytes in a line.
const IN_LINE: usize = 16;

/// The stages, the packet as it came and as it left. Without `bytes`, its headers in words only.
pub(crate) fn render(told: &Value, bytes: bool) -> String {
    let mut page = String::new();
    for step in told["steps"].as_array().into_iter().flatten() {
        let text = |name: &str| step[name].as_str().unwrap_or_default();
        let _ = writeln!(page, "  {:<9}{}", text("stage"), text("said"));
    }
    for (name, title) in [("before", "as it came"), ("after", "as it left")] {
        if told[name].is_object() {
            page += &frame(&told[name], title, bytes);
        }
    }
    page
}

fn frame(frame: &Value, title: &str, bytes: bool) -> String {
    let hex = frame["hex"].as_str().unwrap_or_default();
    let length = frame["length"].as_u64().unwrap_or(0);
    let kept = hex.len() / 2;
    let cut = match u64::try_from(kept) == Ok(length) {
        true => String::new(),
        false => format!(", the first {kept}"),
    };
    let mut page = format!("{title}, {length} bytes{cut}:\n");
    for layer in frame["layers"].as_array().into_iter().flatten() {
        let text = |name: &str| layer[name].as_str().unwrap_or_default();
        let _ = writeln!(page, "  {:<9}{}", text("name"), text("said"));
        let place = |name: &str| usize::try_from(layer[name].as_u64().unwrap_or(0)).unwrap_or(0);
        if bytes {
            page += &dump(hex, place("at"), place("end"));
        }
    }
    page
}

/// The bytes from `at` to `end` of those that `hex` has.
fn dump(hex: &str, at: usize, end: usize) -> String {
    let mut lines = String::new();
    for from in (at..end).step_by(IN_LINE) {
        let to = (from + IN_LINE).min(end);
        let pairs = (from..to).filter_map(|byte| hex.get(2 * byte..2 * byte + 2));
        let _ = writeln!(
            lines,
            "           {from:04x}  {}",
            pairs.collect::<Vec<_>>().join(" ")
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stages_and_bytes_stand_under_their_names() {
        let told = json!({
            "steps": [{ "stage": "verdict", "said": "forwarded by eth1" }],
            "before": { "length": 20, "hex": "00".repeat(17) + "ff", "layers": [
                { "name": "Ethernet", "at": 0, "end": 17, "said": "a > b" },
                { "name": "data", "at": 17, "end": 18, "said": "1 bytes" },
            ] },
            "after": null,
        });
        let page = render(&told, true);
        let expected = format!(
            "  verdict  forwarded by eth1\nas it came, 20 bytes, the first 18:\n  Ethernet a > b\n           \
             0000  {}\n           0010  00\n  data     1 bytes\n           0011  ff\n",
            ["00"; 16].join(" ")
        );
        assert_eq!(page, expected);
        assert!(!render(&told, false).contains("0000"));
    }
}
