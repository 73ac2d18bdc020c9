//! Promise: every case's file says what really comes out, and the page shows the files as they are.

#[cfg(test)]
mod tests {
    use std::fs;

    use ringgate_golden::case::Case;
    use ringgate_golden::{cases_directory, page, page_file, update, verdict};

    fn all() -> Vec<Case> {
        Case::all(&cases_directory(), &[]).unwrap()
    }

    #[test]
    fn what_comes_is_what_the_file_says() {
        let mut wrong = Vec::new();
        for case in all() {
            let differences = verdict::differences(&case).unwrap();
            if !differences.is_empty() {
                wrong.push(format!("{}\n{}", case.name, differences.join("\n")));
            }
        }
        let cure = "cargo run -p ringgate-golden -- update, and review the difference";
        assert!(wrong.is_empty(), "{}\n{cure}", wrong.join("\n\n"));
    }

    #[test]
    fn files_are_as_update_writes_them() {
        for case in all() {
            let text = fs::read_to_string(&case.path).unwrap();
            assert_eq!(update::updated(&case).unwrap(), text, "{}", case.name);
        }
    }

    #[test]
    fn the_page_is_current() {
        let text = fs::read_to_string(page_file()).unwrap();
        assert!(
            page::page(&all()) == text,
            "docs/GOLDEN.md is not what the cases say: cargo run -p ringgate-golden -- page"
        );
    }

    #[test]
    fn a_wrong_file_is_told() {
        let wanted = ["nat/udp-ipv4".to_owned()];
        let mut case = Case::all(&cases_directory(), &wanted).unwrap().remove(0);
        let step = &mut case.file.steps[0];
        step.leaves[0] = step.leaves[0].replace("ttl 63", "ttl 62");
        let flows = step.counters.get_mut("flows").unwrap();
        flows.insert("expired".to_owned(), 7);
        flows.remove("created");
        let lines = verdict::differences(&case).unwrap().join("\n");
        for part in [
            "- back: eth back",
            "+ back: eth back",
            "- flows expired 7",
            "+ flows created 1",
        ] {
            assert!(lines.contains(part), "{part} is not in\n{lines}");
        }
        assert!(
            lines.contains("ttl 62") && lines.contains("ttl 63"),
            "{lines}"
        );
    }

    #[test]
    fn sentences_are_sentences_and_told_once() {
        let cases = all();
        for (place, case) in cases.iter().enumerate() {
            let sentence = &case.file.sentence;
            assert!(sentence.ends_with('.'), "{}: {sentence}", case.name);
            let subject = |case: &Case| case.file.configuration.clone();
            let same =
                |other: &&Case| other.file.sentence == *sentence && subject(other) == subject(case);
            let twice = cases[..place].iter().find(same).map(|case| &case.name);
            assert_eq!(twice, None, "{} says and has the same", case.name);
        }
    }
}
