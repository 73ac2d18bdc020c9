//! The texts that operators read: every kind of mistake and of doubt has a file, and the lines
//! it leads to stand beside it. `BLESS=1 cargo test` writes them anew; read the diff.

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;
    use std::path::{Path, PathBuf};

    use ringgate_config::{Problems, parse};

    /// Runs every `.toml` of a folder through `text_of` and compares with the `.txt` beside it.
    fn walk(folder: &str, least: usize, text_of: impl Fn(&str, &str) -> String) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests")
            .join(folder);
        let entries = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let (cases, goldens): (Vec<PathBuf>, Vec<PathBuf>) =
            entries.partition(|path| path.extension().is_some_and(|end| end == "toml"));
        assert!(cases.len() >= least, "only {} cases", cases.len());
        for golden in goldens {
            assert!(
                golden.with_extension("toml").exists(),
                "{} has no case",
                golden.display()
            );
        }
        let bless = std::env::var_os("BLESS").is_some();
        for case in cases {
            let name = case.file_name().unwrap().to_str().unwrap();
            let text = text_of(name, &fs::read_to_string(&case).unwrap());
            let golden = case.with_extension("txt");
            if bless {
                fs::write(&golden, &text).unwrap();
            }
            let wanted = fs::read_to_string(&golden).unwrap_or_default();
            assert_eq!(text, wanted, "{name} (BLESS=1 rewrites)");
        }
    }

    /// What holds for every problem, whatever its text.
    fn check_form(name: &str, text: &str, problems: &Problems) {
        let mut last = (0, 0);
        for problem in problems.list() {
            let place = &problem.place;
            assert_eq!(&*place.file, name);
            assert!(place.line >= 1 && place.column >= 1, "{problem}");
            assert!(place.line <= text.lines().count() + 1, "{problem}");
            assert!(
                (place.line, place.column) >= last,
                "in the order of the file: {problem}"
            );
            last = (place.line, place.column);
            for part in [&problem.found, &problem.expected, &problem.cure] {
                assert!(!part.is_empty(), "{problem}");
            }
            assert!(
                !problem.to_string().contains(char::is_control),
                "{problem:?}"
            );
        }
    }

    #[test]
    fn rejects_say_where_what_was_expected_and_what_to_do() {
        walk("rejects", 35, |name, text| {
            let problems = parse(name, text).map(|_| ()).expect_err(name);
            check_form(name, text, &problems);
            format!("{problems}\n")
        });
    }

    #[test]
    fn warnings_say_where_what_comes_of_it_and_what_to_do() {
        walk("warnings", 4, |name, text| {
            let parsed = parse(name, text).expect(name);
            assert!(!parsed.warnings.is_empty(), "{name}");
            parsed
                .warnings
                .iter()
                .fold(String::new(), |mut text, warning| {
                    writeln!(text, "{warning}").unwrap();
                    text
                })
        });
    }
}
