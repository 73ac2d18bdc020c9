//! Promise: the rules of the house hold, in every file. What a reviewer would have to look for
//! each time is looked for here.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    use ringgate_dataplane::counters::PORT_COUNTERS;
    use ringgate_dataplane::verdict::DropReason;

    /// The longest file, lines. Longer ones are listed below, and may not grow.
    const LONGEST: usize = 700;

    /// Files that are longer, with their length when they were last looked at, rounded up.
    const LONGER: [(&str, usize); 1] = [("src/control/driver/tests.rs", 770)];

    /// How many lines above an atomic access its comment may begin.
    const COMMENT_WITHIN: usize = 8;

    /// The atomic orderings; `std::cmp::Ordering` has other names.
    const ORDERINGS: [&str; 5] = ["Relaxed", "Acquire", "Release", "AcqRel", "SeqCst"];

    /// The rooms that may be unsafe by decision; docs/UNSAFE.md may register more.
    const ROOMS: [&str; 2] = ["dataplane/src/xsk/", "src/control/ring.rs"];

    #[test]
    fn unsafe_code_is_in_its_rooms_only() {
        let register = fs::read_to_string(root().join("docs/UNSAFE.md")).unwrap();
        // Put together, so that this file does not contain what it looks for.
        let needles = ["{", "fn ", "impl ", "extern ", "trait ", "("]
            .map(|rest| ["unsafe", rest].join(if rest == "(" { "" } else { " " }));
        let mut unregistered = Vec::new();
        for file in rust_files() {
            let is_unsafe = code_lines(&file.text)
                .any(|(_, line)| needles.iter().any(|needle| line.contains(needle)));
            let in_room = ROOMS.iter().any(|room| file.name.starts_with(room))
                || register.contains(&format!("`{}`", file.name));
            if is_unsafe && !in_room {
                unregistered.push(file.name);
            }
        }
        assert_eq!(
            unregistered,
            Vec::<String>::new(),
            "register them in docs/UNSAFE.md"
        );
    }

    #[test]
    fn every_registered_unsafe_file_exists() {
        let register = fs::read_to_string(root().join("docs/UNSAFE.md")).unwrap();
        let named = register.split('`').skip(1).step_by(2);
        let files: Vec<&str> = named
            .filter(|name| name.contains('/') && Path::new(name).extension() == Some("rs".as_ref()))
            .collect();
        assert!(!files.is_empty(), "docs/UNSAFE.md names no file");
        for name in files {
            assert!(
                root().join(name).exists(),
                "docs/UNSAFE.md names {name}, which is not there"
            );
        }
    }

    #[test]
    fn every_module_says_what_it_owns() {
        // The tests that stand in a file of their own are their module's, which speaks for them.
        let speaks = |file: &File| file.text.starts_with("//!") || file.name.ends_with("/tests.rs");
        let silent = rust_files().into_iter().filter(|file| !speaks(file));
        let names: Vec<String> = silent.map(|file| file.name).collect();
        assert_eq!(
            names,
            Vec::<String>::new(),
            "their first line is not a `//!`"
        );
    }

    #[test]
    fn nothing_is_left_for_later() {
        let marks = [["FIX", "ME"], ["X", "XX"], ["TO", "DO"]].map(|halves| halves.concat());
        let mut found = Vec::new();
        for file in files(&["rs", "md", "toml", "c", "h", "sh", "yml", ""]) {
            for (number, line) in file.text.lines().enumerate() {
                let has_mark = |word: &str| marks.iter().any(|mark| mark == word);
                if line.split(|c: char| !c.is_alphanumeric()).any(has_mark) {
                    found.push(format!("{}:{}", file.name, number + 1));
                }
            }
        }
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn files_stay_short() {
        for file in rust_files() {
            let lines = file.text.lines().count();
            let exception = LONGER.iter().find(|(name, _)| *name == file.name);
            let most = exception.map_or(LONGEST, |(_, most)| *most);
            assert!(
                lines <= most,
                "{} has {lines} lines, more than {most}: divide it",
                file.name
            );
        }
        for (name, _) in LONGER {
            let text = fs::read_to_string(root().join(name)).unwrap();
            assert!(
                text.lines().count() > LONGEST,
                "{name} is short now: take it off the list"
            );
        }
    }

    #[test]
    fn every_drop_reason_is_explained_used_and_tested() {
        let documentation = fs::read_to_string(root().join("docs/COUNTERS.md")).unwrap();
        let files = rust_files();
        for reason in DropReason::ALL {
            let (variant, name) = (format!("{reason:?}"), reason.name());
            assert!(
                documentation.contains(&format!("| `{name}` |")),
                "`{name}` is not explained"
            );
            let uses = format!("DropReason::{variant}");
            let elsewhere = || {
                files
                    .iter()
                    .filter(|file| file.name != "dataplane/src/verdict.rs")
            };
            let is_used = elsewhere().any(|file| words(file.code()).any(|word| word == uses));
            assert!(is_used, "nothing is dropped for {variant}");
            let quoted = format!("\"{name}\"");
            let is_tested = elsewhere().any(|file| {
                let tests = file.tests();
                tests.contains(&quoted)
                    || words(tests)
                        .any(|word| word.ends_with(&format!("::{variant}")) || word == variant)
            });
            assert!(is_tested, "no test drops for {variant}");
        }
    }

    #[test]
    fn every_counter_is_explained_and_counted() {
        let documentation = fs::read_to_string(root().join("docs/COUNTERS.md")).unwrap();
        let path = root().join("dataplane/src/counters.rs");
        let text = fs::read_to_string(path).unwrap();
        let names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub ")?.strip_suffix(": Counter,"))
            .collect();
        assert!(names.len() >= 15, "{names:?}");
        for name in PORT_COUNTERS {
            let is_explained = documentation.contains(&format!("`{name}`"));
            assert!(is_explained, "{name} is not explained");
        }
        let files = rust_files();
        for name in names {
            assert!(
                documentation.contains(&format!("`{name}`")),
                "{name} is not explained"
            );
            let place = format!(".{name}");
            let dataplane = files
                .iter()
                .filter(|file| file.name.starts_with("dataplane/src/"));
            let is_counted = dataplane
                .into_iter()
                .any(|file| file.code().contains(&place));
            assert!(is_counted, "{name} is never counted");
        }
    }

    #[test]
    fn every_atomic_ordering_has_its_reason_beside_it() {
        let mut bare = Vec::new();
        for file in rust_files() {
            let lines: Vec<&str> = file.code().lines().collect();
            for (number, line) in lines.iter().enumerate() {
                let is_ordering = |ordering: &&str| line.contains(&format!("Ordering::{ordering}"));
                let is_code = !line.trim_start().starts_with("//");
                if !is_code || !ORDERINGS.iter().any(is_ordering) {
                    continue;
                }
                let near = &lines[number.saturating_sub(COMMENT_WITHIN)..=number];
                if !near.iter().any(|line| line.contains("//")) {
                    bare.push(format!("{}:{}", file.name, number + 1));
                }
            }
        }
        assert_eq!(
            bare,
            Vec::<String>::new(),
            "say why this ordering, and with what it pairs"
        );
    }

    #[test]
    fn a_document_has_one_title_and_its_links_lead_somewhere() {
        let mut wrong = Vec::new();
        for file in files(&["md"]) {
            let lines = prose(&file.text);
            let titles = lines.iter().filter(|line| line.starts_with("# ")).count();
            if titles != 1 || !file.text.starts_with("# ") {
                wrong.push(format!("{} has {titles} titles", file.name));
            }
            let directory = root().join(&file.name).parent().unwrap().to_owned();
            for target in lines.iter().flat_map(|line| link_targets(line)) {
                let path = target.split('#').next().unwrap();
                let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
                if !is_elsewhere && !path.is_empty() && !directory.join(path).exists() {
                    wrong.push(format!(
                        "{} links to {target}, which is not there",
                        file.name
                    ));
                }
            }
        }
        assert_eq!(wrong, Vec::<String>::new());
    }

    #[test]
    fn scripts_are_executable() {
        for file in files(&["", "sh"]) {
            if file.text.starts_with("#!") {
                let mode = fs::metadata(root().join(&file.name))
                    .unwrap()
                    .permissions()
                    .mode();
                assert_eq!(mode & 0o111, 0o111, "chmod +x {}", file.name);
            }
        }
    }

    /// A text file of the project.
    struct File {
        /// Its path from the root.
        name: String,
        text: String,
    }

    impl File {
        /// The part before the tests; empty for a file of tests.
        fn code(&self) -> &str {
            if self.is_tests() {
                ""
            } else {
                &self.text[..self.tests_begin()]
            }
        }

        /// The tests.
        fn tests(&self) -> &str {
            if self.is_tests() {
                &self.text
            } else {
                &self.text[self.tests_begin()..]
            }
        }

        fn tests_begin(&self) -> usize {
            self.text
                .find("#[cfg(test)]\nmod tests")
                .unwrap_or(self.text.len())
        }

        fn is_tests(&self) -> bool {
            let in_directory = self.name.split('/').any(|part| part == "tests");
            in_directory || self.name.ends_with("/tests.rs")
        }
    }

    fn rust_files() -> Vec<File> {
        let files = files(&["rs"]);
        assert!(files.len() > 30, "only {} files were found", files.len());
        files
    }

    /// The project's files with one of these extensions, in a stable order.
    fn files(extensions: &[&str]) -> Vec<File> {
        let mut paths = Vec::new();
        walk(&root(), &mut paths);
        paths.sort();
        let has_extension = |path: &PathBuf| {
            let extension = path.extension().map_or("", |one| one.to_str().unwrap());
            extensions.contains(&extension)
        };
        paths
            .into_iter()
            .filter(has_extension)
            .filter_map(|path| {
                let name = path
                    .strip_prefix(root())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                Some(File {
                    name,
                    text: fs::read_to_string(&path).ok()?,
                })
            })
            .collect()
    }

    /// Everything but what is built, what git keeps for itself, and fuzzing's finds.
    fn walk(directory: &Path, paths: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_symlink() || ["target", ".git", "corpus", "artifacts"].contains(&name) {
                continue;
            }
            if path.is_dir() {
                walk(&path, paths)
            } else {
                paths.push(path)
            }
        }
    }

    /// Lines that are not comments, with their numbers.
    fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
        text.lines()
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Words with paths: `a::b` is one.
    fn words(text: &str) -> impl Iterator<Item = &str> {
        text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
    }

    /// A document's lines outside of fenced code.
    fn prose(text: &str) -> Vec<&str> {
        let mut in_code = false;
        text.lines()
            .filter(|line| {
                let is_fence = line.trim_start().starts_with("```");
                in_code ^= is_fence;
                !in_code && !is_fence
            })
            .collect()
    }

    /// What `](…)` points to.
    fn link_targets(line: &str) -> Vec<&str> {
        line.split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
            .collect()
    }

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn the_rules_are_read_right() {
        let file = File {
            name: "src/a.rs".to_owned(),
            text: "code\n#[cfg(test)]\nmod tests {\n}\n".to_owned(),
        };
        assert_eq!((file.code(), file.tests().lines().count()), ("code\n", 3));
        assert_eq!(
            link_targets("[a](b.md#c) and [d](https://e)"),
            ["b.md#c", "https://e"]
        );
        assert_eq!(prose("a\n```\n# b\n```\nc"), ["a", "c"]);
        assert!(words("x(DropReason::NotIp)").any(|word| word == "DropReason::NotIp"));
        assert_eq!(code_lines("// a\nb").collect::<Vec<_>>(), [(1, "b")]);
    }
}
