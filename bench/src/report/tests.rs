use super::*;

/// A run as `measure` writes it, with figures that nobody measured: it shows the format.
const SAMPLE: &str = include_str!("sample.json");

fn sample() -> String {
    page(&[("sample.json".to_owned(), read(SAMPLE).unwrap())], None)
}

#[test]
fn every_chart_is_there_and_has_numbers() {
    let page = sample();
    let charts = [
        "Rate by forwarding mode",
        "Rate by frame size",
        "Scaling with flows",
        "Peers side by side",
        "IPv4 and IPv6",
        "Rates without loss, and with 0.5 %",
        "Latency",
        "TCP connections per second",
        "First packet after idling",
        "Cost between the interfaces",
        "Cost in memory",
    ];
    for title in charts {
        let label = format!("<svg role=\"img\" aria-label=\"{title}\"");
        assert_eq!(page.matches(&label).count(), 1, "{title}");
    }
    assert_eq!(page.matches("</svg>").count(), charts.len());
    assert!(!page.contains("Not measured"));
    for what in [
        "rate, nat, 64 bytes, 100000 flows",
        "reset time",
        "reload under load",
        "change of backends",
        "idle",
    ] {
        assert!(page.contains(&format!("<td>{what}</td>")), "{what}");
    }
}

#[test]
fn families_are_not_mixed() {
    let page = sample();
    // The rate over IPv6 is in its own chart and in no other's table.
    assert_eq!(
        page.matches("<td>rate, nat, ipv6, 84, 100k flows</td>")
            .count(),
        3
    );
    assert_eq!(page.matches("aria-label=\"IPv4 and IPv6\"").count(), 1);
}

#[test]
fn nothing_is_fetched_and_nothing_runs() {
    let page = sample();
    for word in [
        "http://", "https://", "<script", "<link", "<img", "src=", "url(", "@import",
    ] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn every_coordinate_is_a_number() {
    let page = sample();
    for svg in page.split("<svg ").skip(1) {
        let svg = svg.split("</svg>").next().unwrap();
        for word in ["NaN", "inf", "null"] {
            assert!(!svg.contains(word), "{word}");
        }
        for name in [
            "x", "y", "cx", "cy", "x1", "x2", "y1", "y2", "width", "height",
        ] {
            for rest in svg.split(&format!(" {name}=\"")).skip(1) {
                let value = rest.split('"').next().unwrap();
                assert!(
                    value.parse::<f64>().is_ok_and(f64::is_finite),
                    "{name}={value}"
                );
            }
        }
    }
}

#[test]
fn the_reader_sees_where_it_was_measured_and_how_to_repeat_it() {
    let (page, outcome) = (sample(), read(SAMPLE).unwrap());
    let told = [
        outcome.machine["cpu"].as_str().unwrap(),
        outcome.machine["kernel"].as_str().unwrap(),
        &outcome.commit,
        &outcome.date,
        &outcome.command,
    ];
    for text in told {
        assert!(!text.is_empty() && page.contains(&escape(text)), "{text:?}");
    }
    assert!(page.contains("A quick run"));
    // The raw figures are in it, whole.
    let raw = page
        .split("<pre>")
        .nth(1)
        .unwrap()
        .split("</pre>")
        .next()
        .unwrap();
    let raw = raw
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    assert_eq!(read(&raw).unwrap(), outcome);
}

#[test]
fn a_run_that_measured_little_is_a_page_that_says_so() {
    let little = read(
        r#"{"machine":{"cpu":"<b>"},"rows":[{"method":"rate","who":"bare","value":null}],
        "missing":[{"what":"haproxy","why":"not installed"}]}"#,
    )
    .unwrap();
    let page = page(&[("little.json".to_owned(), little)], None);
    assert!(page.contains("Not measured") && page.contains("not installed"));
    assert!(!page.contains("<b>") && !page.contains("NaN") && !page.contains("<svg"));
}

#[test]
fn what_micro_writes_is_a_chapter_of_steps() {
    let micro = r#"{"machine":{"cpu":"x","kernel":"6"},"rows":[
        {"stage":"parse","mode":null,"family":"ipv4","direction":null,"flows":1000,"order":null,"ns":4.5},
        {"stage":"rewrite","mode":"gue","family":"ipv4","direction":"to-backend","flows":1000,"order":null,"ns":9.5},
        {"stage":"pipeline","mode":"nat","family":"ipv4","direction":"to-backend","flows":1000,"order":"uniform","ns":40.0}]}"#;
    let page = page(&[("micro.json".to_owned(), read(micro).unwrap())], None);
    assert_eq!(page.matches("<svg").count(), 1);
    assert!(page.contains("<td>all, 1k flows</td>") && page.contains("<td>4.5</td>"));
    assert!(!page.contains("<td>9.5</td>"));
}

#[test]
fn another_file_is_refused_with_what_was_expected() {
    for text in ["", "{}", "[]", r#"{"rows":[{"mode":"nat","ratio":1}]}"#] {
        let error = read(text).unwrap_err();
        assert!(
            error.contains("JSON") || error.contains("measure"),
            "{error}"
        );
    }
}
