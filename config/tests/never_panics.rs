//! Nothing a file can hold panics, and what is accepted holds what the model promises:
//! arbitrary text, TOML-like text, and mutations of every example and reject.

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;
    use ringgate_config::{Forward, Model, limits, parse};

    /// Every `.toml` beside the sources.
    fn corpus() -> Vec<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folders = ["examples", "tests/rejects", "tests/warnings"];
        let entries = folders
            .iter()
            .flat_map(|folder| fs::read_dir(root.join(folder)).unwrap());
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|end| end == "toml"));
        paths.sort();
        paths
            .iter()
            .map(|path| fs::read_to_string(path).unwrap())
            .collect()
    }

    /// Parses, prints whatever comes, and checks the promises of an accepted model.
    fn exercise(text: &str) -> bool {
        match parse("test.toml", text) {
            Ok(parsed) => {
                check(&parsed.model);
                parsed
                    .warnings
                    .iter()
                    .for_each(|warning| assert!(!warning.to_string().is_empty()));
                true
            }
            Err(problems) => {
                assert!(!problems.list().is_empty());
                assert!(problems.list().len() <= limits::PROBLEMS_MAX);
                for problem in problems.list() {
                    assert!(
                        !problem.to_string().contains(char::is_control),
                        "{problem:?}"
                    );
                }
                false
            }
        }
    }

    /// The promises at the head of `model.rs`.
    fn check(model: &Model) {
        if let (Some(workers), Some(cores)) = (model.balancer().workers(), model.balancer().cores())
        {
            assert_eq!(usize::from(workers.get()), cores.len());
        }
        let interfaces: HashSet<_> = model.interfaces().iter().map(|i| i.name()).collect();
        assert!(!interfaces.is_empty() && interfaces.len() == model.interfaces().len());
        let names: HashSet<_> = model.services().iter().map(|s| s.name()).collect();
        assert_eq!(names.len(), model.services().len());
        let listens: HashSet<_> = model
            .services()
            .iter()
            .map(|s| (s.listen(), s.protocol()))
            .collect();
        assert_eq!(listens.len(), model.services().len());
        let vips: HashSet<_> = model.services().iter().map(|s| s.listen().ip()).collect();
        for service in model.services() {
            assert!(limits::is_prime(service.table_size()) && service.listen().port() != 0);
            assert!(service.table_size() as usize >= service.backends().len());
            assert!(
                service
                    .health()
                    .is_none_or(|health| health.timeout() <= health.interval())
            );
            let addresses: HashSet<_> = service.backends().iter().map(|b| b.address()).collect();
            assert_eq!(addresses.len(), service.backends().len());
            for address in addresses {
                assert_eq!(address.is_ipv4(), service.listen().is_ipv4());
                assert!(address.port() != 0 && !vips.contains(&address.ip()));
                let same_port = address.port() == service.listen().port();
                assert!(service.forward() != Forward::DsrL2 || same_port);
            }
        }
    }

    /// Pieces that make text look like a configuration.
    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "[",
            "]",
            "[[",
            "]]",
            "{",
            "}",
            "=",
            ",",
            ".",
            "\"",
            "'",
            "\"\"\"",
            "\n",
            "\r\n",
            " ",
            "#",
            "\\",
            "0",
            "1",
            "-1",
            "0x",
            "1e9",
            "true",
            "inf",
            "nan",
            "1979-05-27",
            "\u{feff}",
            "é",
            "\u{0}",
            "balancer",
            "interface",
            "service",
            "backend",
            "health",
            "name",
            "listen",
            "address",
            "weight",
            "\"10.0.0.1:80\"",
            "\"[::1%1]:80\"",
            "\"5s\"",
            "table-size",
        ])
    }

    #[test]
    fn every_prefix_of_the_corpus_is_survived() {
        let examples = corpus();
        for text in examples.iter().filter(|text| text.len() < 4_096) {
            for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
                exercise(&text[..end]);
            }
        }
    }

    #[test]
    fn deep_nesting_is_survived() {
        for (open, count) in [("[", 100_000), ("{a=", 100_000), ("a.", 10_000)] {
            assert!(!exercise(&open.repeat(count)));
            assert!(!exercise(&format!("x = {}", open.repeat(count))));
        }
    }

    #[test]
    fn a_text_beyond_the_bound_is_refused_unread() {
        let text = "#".repeat(limits::FILE_BYTES_MAX + 1);
        let problems = parse("big", &text).unwrap_err();
        assert_eq!(problems.list().len(), 1);
        assert!(problems.list()[0].found.ends_with("bytes"));
    }

    #[test]
    fn more_problems_than_anyone_reads_are_counted() {
        let text = "[[interface]]\nmode = 5\n".repeat(limits::PROBLEMS_MAX);
        let problems = parse("many", &text).unwrap_err();
        assert_eq!(problems.list().len(), limits::PROBLEMS_MAX);
        // A wrong type and a missing name each, and one for the number of interfaces.
        assert_eq!(problems.omitted(), limits::PROBLEMS_MAX + 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            exercise(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn toml_like_text_is_survived(pieces in prop::collection::vec(piece(), 0..64)) {
            exercise(&pieces.concat());
        }

        #[test]
        fn mutations_of_the_corpus_are_survived(
            file in any::<prop::sample::Index>(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), 0..24_usize, piece()), 1..6),
        ) {
            let corpus = corpus();
            let mut chars: Vec<char> = file.get(&corpus).chars().collect();
            for (at, cut, piece) in edits {
                let start = at.index(chars.len() + 1);
                let end = (start + cut).min(chars.len());
                chars.splice(start..end, piece.chars());
            }
            exercise(&chars.into_iter().collect::<String>());
        }

        #[test]
        fn lines_of_the_corpus_put_together_are_survived(
            picks in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 1..40),
        ) {
            let corpus = corpus();
            let lines = picks.iter().filter_map(|(file, line)| {
                let lines: Vec<&str> = file.get(&corpus).lines().collect();
                (!lines.is_empty()).then(|| *line.get(&lines))
            });
            exercise(&lines.collect::<Vec<_>>().join("\n"));
        }
    }
}
