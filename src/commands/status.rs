//! `ringgate status`: ask a running balancer how it is.
#![expect(clippy::print_stdout, reason = "printing is what this command is for")]

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use crate::cli::Status;
use crate::control::client;

/// Runs the command.
pub(crate) fn run(args: &Status) -> ExitCode {
    match client::get(&args.admin.admin, "/v1/status") {
        Ok(status) if args.json => println!("{status:#}"),
        Ok(status) => print!("{}", render(&status)),
        Err(error) => {
            eprintln!("ringgate status: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Which configuration runs, and whether it is the file's.
fn configuration(status: &Value) -> String {
    let file = status["config"].as_str().unwrap_or("-");
    let in_force = &status["in_force"];
    let source = match in_force["applied"].as_str() {
        Some(name) => format!("applied from {name}, not from {file}"),
        None => file.to_owned(),
    };
    let disk = match in_force["on_disk"].as_str() {
        Some("same") => "the file on disk says the same".to_owned(),
        Some("differs") => {
            format!("NOT what {file} says now: see `ringgate apply --dry-run {file}`")
        }
        Some("refused") => format!("{file} on disk has MISTAKES: see `ringgate check {file}`"),
        Some("unreadable") => format!("{file} CANNOT BE READ now"),
        _ => "the file on disk was not looked at yet".to_owned(),
    };
    format!("configuration  {source}; {disk}")
}

/// The page for people.
fn render(status: &Value) -> String {
    let mut page = String::new();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let uptime = status["uptime_ms"].as_u64().unwrap_or(0) / 1000;
    let draining = ["", ", draining"][usize::from(status["draining"] == true)];
    line(
        &mut page,
        &format!(
            "ringgate {}  pid {}  up {uptime} s  generation {}  control {}{draining}",
            text(&status["version"]),
            status["pid"],
            status["generation"],
            text(&status["control"]["io"]),
        ),
    );
    line(&mut page, &configuration(status));
    render_process(&mut page, &status["process"]);
    render_flows(&mut page, &status["flows"]);
    for source in list(&status["sources"]) {
        render_source(&mut page, source);
    }
    for worker in list(&status["workers"]) {
        line(
            &mut page,
            &format!(
                "worker {}  cpu {}  busy turns {}  idle turns {}  sleeps {}{}",
                worker["index"],
                worker["core"],
                worker["busy_turns"],
                worker["idle_turns"],
                worker["sleeps"],
                took("packets stay", &worker["residence"], "ns"),
            ),
        );
    }
    render_icmp(&mut page, &status["icmp"]);
    for interface in list(&status["interfaces"]) {
        render_interface(&mut page, interface);
    }
    for service in list(&status["services"]) {
        render_service(&mut page, service);
    }
    page
}

fn render_flows(page: &mut String, flows: &Value) {
    line(
        page,
        &format!(
            "flows  {} of {}  created {}  expired {}  flushed {}  re-hashed {}  not stored: full {}, contended {}, too fast {}  out of window {}",
            flows["stored"],
            flows["capacity"],
            flows["created"],
            flows["expired"],
            flows["flushed"],
            flows["rehashed"],
            flows["table_full"],
            flows["contended"],
            flows["too_fast"],
            flows["out_of_window"],
        ),
    );
    line(
        page,
        &format!(
            "half open  {} of {}  created {}  displaced {}  expired {}",
            flows["half_open_stored"],
            flows["half_open_capacity"],
            flows["half_open"],
            flows["half_open_displaced"],
            flows["half_open_expired"],
        ),
    );
    let log = &flows["log"];
    if !log["one_in"].is_null() {
        let told = format!(
            "flow log  one in {}  follows {} of {}  began {}  ended {}  lost {}",
            log["one_in"], log["open"], log["capacity"], log["began"], log["ended"], log["lost"],
        );
        line(page, &told);
    }
}

/// Who it is and what it may do, on one line.
fn render_process(page: &mut String, process: &Value) {
    let capabilities = |of: &str| {
        let names = list(&process[of]).iter().filter_map(Value::as_str);
        let names: Vec<&str> = names.collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(" ")
        }
    };
    let told = |key: &str, yes, no| if process[key] == true { yes } else { no };
    line(
        page,
        &format!(
            "process  uid {}  gid {}  capabilities {}, of workers {}  {}  {}",
            process["uid"],
            process["gid"],
            capabilities("capabilities"),
            capabilities("workers_capabilities"),
            told("no_new_privs", "no new privileges", "new privileges"),
            told("seccomp", "system calls confined", "system calls free"),
        ),
    );
}

/// How long something took, half of it and all but one in a hundred; nothing where nothing was measured.
fn took(what: &str, times: &Value, unit: &str) -> String {
    let time = |part: &str| times[format!("{part}_{unit}")].as_u64();
    match (time("p50"), time("p99")) {
        (Some(half), Some(most)) => {
            let unit = unit.replace("us", "µs");
            format!("  {what} {half} {unit}, 99 % of them {most} {unit}")
        }
        _ => String::new(),
    }
}

/// What there was of ICMP, on one line.
fn render_icmp(page: &mut String, icmp: &Value) {
    let counters = icmp.as_object().into_iter().flatten();
    let some = counters.filter(|(_, count)| count.as_u64() > Some(0));
    let some: Vec<String> = some
        .map(|(what, count)| format!("  {what} {count}"))
        .collect();
    if !some.is_empty() {
        line(page, &format!("icmp{}", some.concat()));
    }
}

fn render_source(page: &mut String, source: &Value) {
    line(
        page,
        &format!(
            "source {}  ports held {}  resting {}  of {}",
            source["address"].as_str().unwrap_or("-"),
            source["held"],
            source["resting"],
            source["ports"],
        ),
    );
}

fn render_interface(page: &mut String, interface: &Value) {
    let steering = &interface["steering"];
    let mode = interface["mode"].as_str().unwrap_or("-");
    let name = interface["name"].as_str().unwrap_or("-");
    line(page, &format!("\ninterface {name}  {mode}"));
    line(
        page,
        &format!(
            "  arrived {}  passed to the kernel {}  without a worker {}",
            steering["received"], steering["passed"], steering["passed_no_worker"],
        ),
    );
    line(
        page,
        &format!(
            "  received {} ({} bytes)  forwarded {}  answered {}  dropped {}",
            interface["received"],
            interface["received_bytes"],
            interface["forwarded"],
            interface["answered"],
            interface["dropped_total"],
        ),
    );
    for (what, group) in [
        ("drop", &interface["dropped"]),
        ("kernel", &interface["kernel"]),
    ] {
        for (reason, count) in group.as_object().into_iter().flatten() {
            if count.as_u64().is_some_and(|count| count > 0) {
                line(page, &format!("    {what}: {reason} {count}"));
            }
        }
    }
}

fn render_service(page: &mut String, service: &Value) {
    let field = |name: &str| service[name].as_str().unwrap_or("-").to_owned();
    let is = |name: &str| service[name] == true;
    let healthy = format!("{} of {}", service["healthy"], service["needs_healthy"]);
    let state = if is("fallen_open") {
        format!("  fallen open: {healthy} that must be healthy are")
    } else if is("fallen_closed") {
        format!("  fallen closed: {healthy} that must be healthy are")
    } else if is("trusts_suspects") {
        "  more backends are suspect than may be: none is taken for it".to_owned()
    } else {
        String::new()
    };
    line(
        page,
        &format!(
            "\nservice {}  {} {}  {}{state}{}",
            field("name"),
            field("protocol"),
            field("listen"),
            field("forward"),
            took("checks take", &service["check"]["took"], "us"),
        ),
    );
    line(
        page,
        &format!(
            "  {:<28} {:<9} {:>11} {:>9} {:>9} {:>11} {:>11} {:>10} {:>12}",
            "backend",
            "state",
            "weight",
            "flows now",
            "flows",
            "packets",
            "replies",
            "packets/s",
            "bits/s",
        ),
    );
    for backend in list(&service["backends"]) {
        let number = |name: &str| backend[name].to_string();
        line(
            page,
            &format!(
                "  {:<28} {:<9} {:>11} {:>9} {:>9} {:>11} {:>11} {:>10} {:>12}",
                backend["address"].as_str().unwrap_or("-"),
                backend["state"].as_str().unwrap_or("-"),
                weight(backend),
                number("flows_now"),
                number("flows"),
                number("packets"),
                number("reply_packets"),
                number("packets_per_second"),
                number("bits_per_second"),
            ),
        );
        render_check(page, &backend["check"]);
    }
}

/// What is known of a backend from its check, a line each.
fn render_check(page: &mut String, check: &Value) {
    if let Some(last) = check["last"].as_str() {
        let via = check["asked"].as_str();
        let via = via.map_or_else(String::new, |asked| format!(" of {asked} through it"));
        line(page, &format!("      check{via}: {last}"));
    }
    if let Some(told) = check["reported"].as_str() {
        line(page, &format!("      reported: {told}"));
    }
    if let Some(millis) = check["held_ms"].as_u64() {
        let seconds = millis.div_ceil(1000);
        line(
            page,
            &format!("      held down for {seconds} s more: it changed sides too often"),
        );
    }
}

/// The effective weight, and the configured one where it differs.
fn weight(backend: &Value) -> String {
    let (effective, configured) = (&backend["effective_weight"], &backend["weight"]);
    if effective.as_f64() == configured.as_f64() {
        return configured.to_string();
    }
    match effective.as_f64() {
        Some(effective) => format!("{effective}/{configured}"),
        None => configured.to_string(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn line(page: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _infallible = writeln!(page, "{text}");
}
