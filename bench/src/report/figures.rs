//! Which charts there are, and which rows of a run are in which.

use crate::method::outcome::{Outcome, Row};
use crate::report::chart::{Bars, Lines, MOST_NINES, Scale, short};
use crate::report::html::{Figure, Table};

/// The size that is compared unless sizes are.
const SIZE: &str = "64";

/// The number of flows that is compared unless flows are.
const FLOWS: u64 = 100_000;

/// The mode that is compared unless modes are.
const MODE: &str = "nat";

const IPV6: &str = "ipv6";

/// Percentiles of the latency curves: names in the files, and nines.
const PERCENTILES: [(&str, f64); 6] = [
    ("p50", 0.301),
    ("p90", 1.0),
    ("p99", 2.0),
    ("p99.9", 3.0),
    ("p99.99", 4.0),
    ("max", MOST_NINES),
];

/// All figures of a run, whether it has the rows or not.
#[must_use]
pub fn all(outcome: &Outcome) -> Vec<Figure> {
    let rows = &outcome.rows;
    vec![
        by_mode(rows),
        by_size(rows),
        by_flows(rows),
        side_by_side(rows),
        by_family(rows),
        searched(rows),
        latency(rows),
        connections(rows),
        first_packets(rows),
        steps(rows),
        stages(outcome),
        disturbances(rows),
    ]
}

fn by_mode(rows: &[Row]) -> Figure {
    let rows = rates(rows, |row| {
        row.size == SIZE && row.flows == FLOWS && is_pair(row)
    });
    bars(
        "Rate by forwarding mode",
        "64-byte UDP, 100,000 flows, offered faster than anybody forwards; what reaches the \
         sink's link. The bare forwarder receives and sends and does nothing else: it is the \
         ceiling of this host. Medians of windows in turn.",
        &rows,
        |row| row.mode.clone(),
    )
}

fn by_size(rows: &[Row]) -> Figure {
    let rows = rates(rows, |row| {
        row.mode == MODE && row.flows == FLOWS && is_pair(row)
    });
    bars(
        "Rate by frame size",
        "Mode nat, 100,000 flows. imix is 7 of 64, 4 of 594 and 1 of 1518 bytes.",
        &rows,
        |row| match row.size.as_str() {
            "imix" => "imix".to_owned(),
            size => format!("{size} bytes"),
        },
    )
}

fn by_flows(rows: &[Row]) -> Figure {
    let mut rows = rates(rows, |row| {
        row.mode == MODE && row.size == SIZE && is_pair(row)
    });
    rows.sort_by_key(|row| row.flows);
    let series = names(&rows).into_iter().map(|who| {
        let own = rows.iter().filter(|row| row.who == who);
        let points = own.filter_map(|row| Some((row.flows as f64, row.value?)));
        let points: Vec<(f64, f64)> = points.collect();
        (who, points)
    });
    let lines = Lines {
        series: series.collect(),
        across: "flows".to_owned(),
        up: "frames/s".to_owned(),
        scale: Scale::Counts,
    };
    Figure {
        title: "Scaling with flows".to_owned(),
        caption: "Mode nat, 64-byte UDP. The flows are there before a window begins: what more of \
                  them costs is memory."
            .to_owned(),
        drawing: lines.draw().ok(),
        table: numbers(&rows),
    }
}

fn side_by_side(rows: &[Row]) -> Figure {
    let at = |row: &Row| row.mode == MODE && row.size == SIZE && row.flows == FLOWS;
    let rows = rates(rows, at);
    bars(
        "Peers side by side",
        "64-byte UDP, 100,000 flows, the same links, traffic and run, in turn. kernel forwards \
         without translating; nftables translates as nat does.",
        &rows,
        |_| "64-byte UDP".to_owned(),
    )
}

fn by_family(rows: &[Row]) -> Figure {
    let is_there = |row: &&Row| row.method == "rate" && row.family == IPV6;
    let six: Vec<&Row> = rows.iter().filter(is_there).collect();
    let has_six = |who: &str| six.iter().any(|row| row.who == who);
    let mut all = rates(rows, |row| {
        let is_plain = row.mode == MODE && row.size == SIZE && row.flows == FLOWS;
        is_plain && has_six(&row.who)
    });
    all.extend(&six);
    bars(
        "IPv4 and IPv6",
        "Mode nat, 100,000 flows, the smallest frames: 64 bytes, and 84 with a header of IPv6.",
        &all,
        |row| if row.family == IPV6 { "IPv6" } else { "IPv4" }.to_owned(),
    )
}

fn first_packets(rows: &[Row]) -> Figure {
    let rows = by(rows, "first-packet");
    bars(
        "First packet after idling",
        "From the source's stamp to the sink's look at it, one packet each quarter of a second. wire: one \
         link with the same source and sink at its ends, neither of which sleeps: what the \
         generator and a link take. wake-up: a thread that sleeps in poll(2) on the forwarder's \
         CPU and is woken by another, nothing else: what this host takes to wake a CPU. The rest \
         is the forwarder's, with cold caches, and its second link.",
        &rows,
        |_| "median".to_owned(),
    )
}

fn searched(rows: &[Row]) -> Figure {
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| ["ndr", "pdr"].contains(&row.method.as_str()))
        .collect();
    bars(
        "Rates without loss, and with 0.5 %",
        "The highest rate at which nothing is lost (NDR) and at which no more than 0.5 % is \
         (PDR), by MLRsearch (draft-ietf-bmwg-mlrsearch): the median of short trials decides. On \
         a virtual machine the host beneath takes time as it likes, and what it takes is lost: \
         NDR is then this machine's more than the forwarder's. What is at a limit of the source \
         may be higher.",
        &rows,
        |row| row.method.to_uppercase(),
    )
}

fn latency(rows: &[Row]) -> Figure {
    let rows = by(rows, "latency");
    let series = rows.iter().map(|row| {
        let points = PERCENTILES
            .iter()
            .filter_map(|&(name, nines)| Some((nines, row.figure(name)? / 1000.0)));
        let points: Vec<(f64, f64)> = points.filter(|&(_, up)| up > 0.0).collect();
        (format!("{} {} %", row.who, row.case), points)
    });
    let lines = Lines {
        series: series.collect(),
        across: "percentile; most: the greatest of all".to_owned(),
        up: "microseconds".to_owned(),
        scale: Scale::Percentiles,
    };
    let mut heads = vec!["who", "% of NDR", "frames/s"];
    heads.extend(PERCENTILES.iter().map(|&(name, _)| name));
    let mut table = Table::new(&heads);
    for row in &rows {
        let mut cells = vec![
            row.who.clone(),
            row.case.clone(),
            row.offered.map(short).unwrap_or_default(),
        ];
        let micros = |name| row.figure(name).map(|ns| format!("{:.1} µs", ns / 1000.0));
        cells.extend(PERCENTILES.map(|(name, _)| micros(name).unwrap_or_default()));
        table.rows.push(cells);
    }
    Figure {
        title: "Latency".to_owned(),
        caption: "From the source's stamp to the sink's look at it, both links and both kernels \
                  in it, at 50, 90 and 100 % of the rate that Ringgate forwards without loss \
                  (RFC 8219): the same load for both. The fainter a line, the higher its load."
            .to_owned(),
        drawing: lines.draw().ok(),
        table,
    }
}

fn connections(rows: &[Row]) -> Figure {
    let rows = by(rows, "connections");
    bars(
        "TCP connections per second",
        "Opened, one request and one answer of 64 bytes, closed; by a client and a server without \
         kernel stacks, so that neither is the limit. Ringgate and nftables forward packets, \
         HAProxy and nginx take connections and open others.",
        &rows,
        |_| "connections/s".to_owned(),
    )
}

/// The parts of a turn, from ports that read the clock.
fn steps(rows: &[Row]) -> Figure {
    let rows = by(rows, "step");
    let mut figure = bars(
        "Cost between the interfaces",
        "Time of a frame of 64 bytes in a turn that found frames, 100,000 flows, mode nat: what \
         the sockets take (receive, recycle, transmit), the system calls that send (kick), and \
         what lies between (own: parse, look up, decide, rewrite, count).",
        &rows,
        |row| row.case.clone(),
    );
    figure.table = Table::new(&["part", "who", "median", "least to greatest"]);
    for row in rows {
        let value = with_unit(row.value, &row.unit);
        let cells = [row.case.clone(), row.who.clone(), value, spread(row)];
        figure.table.rows.push(cells.to_vec());
    }
    figure
}

/// The steps of one packet, and the whole, from the microbenchmarks.
fn stages(outcome: &Outcome) -> Figure {
    let mut table = Table::new(&["step", "flows", "ns a packet"]);
    let mut bars = Bars {
        axis: "ns a packet".to_owned(),
        ..Bars::default()
    };
    let mut values = Vec::new();
    for row in &outcome.stages {
        let text = |key: &str| row[key].as_str().unwrap_or("");
        let is_one = |key: &str, wanted: &str| text(key).is_empty() || text(key) == wanted;
        let is_shown = ["parse", "hash", "steer", "rewrite", "pipeline"].contains(&text("stage"))
            && is_one("mode", MODE)
            && is_one("family", "ipv4")
            && is_one("direction", "to-backend")
            && is_one("order", "uniform")
            && row["threads"].as_u64().unwrap_or(1) == 1;
        let (Some(ns), true) = (row["ns"].as_f64(), is_shown) else {
            continue;
        };
        let flows = row["flows"].as_u64().unwrap_or(0);
        let mut name = text("stage").to_owned();
        if name == "pipeline" {
            name = format!("all, {} flows", short(flows as f64));
        }
        table
            .rows
            .push(vec![name.clone(), flows.to_string(), format!("{ns:.1}")]);
        bars.groups.push(name);
        values.push(Some(ns));
    }
    bars.series.push(("ringgate".to_owned(), values));
    Figure {
        title: "Cost in memory".to_owned(),
        caption: "CPU time of a packet in memory, without a kernel: mode nat, IPv4, to the \
                  backend. Steps one after another with a thousand flows in the cache; all is a \
                  worker less the bare loop, by number of flows. In a worker the look-ups of a \
                  batch overlap, so it is less than their sum."
            .to_owned(),
        drawing: bars.draw().ok(),
        table,
    }
}

/// What disturbs, and idling: numbers that a chart would not make clearer.
fn disturbances(rows: &[Row]) -> Figure {
    let mut table = Table::new(&[
        "what",
        "who",
        "case",
        "median",
        "least to greatest",
        "besides",
    ]);
    for row in rows {
        let Some(what) = disturbance(&row.method) else {
            continue;
        };
        let besides = row.figures.iter();
        let besides = besides.map(|(name, value)| format!("{name} {}", short(*value)));
        let besides = besides.chain(row.limit.clone());
        table.rows.push(vec![
            what.to_owned(),
            row.who.clone(),
            row.case.clone(),
            with_unit(row.value, &row.unit),
            spread(row),
            besides.collect::<Vec<_>>().join(", "),
        ]);
    }
    Figure {
        title: "Disturbances and idling".to_owned(),
        caption: "Reset: kill -9 and a new start at once, frames lost by the rate they came at \
                  (RFC 6201). Reload: frames lost and flows that changed their backend while the \
                  configuration is read again under load, beside the same without. Churn: share \
                  of flows that change their backend though it stays, when one of eight goes or \
                  comes; without flow entries that is what the Maglev ring moves. Idle: CPU time \
                  of all threads without traffic."
            .to_owned(),
        drawing: None,
        table,
    }
}

fn disturbance(method: &str) -> Option<&'static str> {
    Some(match method {
        "reset" => "reset time",
        "reload" => "reload under load",
        "churn" => "change of backends",
        "concurrent" => "flows held at once",
        "idle" => "idle",
        _ => return None,
    })
}

/// Rows of a method.
fn by<'r>(rows: &'r [Row], method: &str) -> Vec<&'r Row> {
    rows.iter().filter(|row| row.method == method).collect()
}

/// Rows of the greatest rate over IPv4 that are wanted.
fn rates(rows: &[Row], wanted: impl Fn(&Row) -> bool) -> Vec<&Row> {
    let of_rate = by(rows, "rate").into_iter();
    let of_rate = of_rate.filter(|row| row.family != IPV6);
    of_rate.filter(|row| wanted(row)).collect()
}

fn is_pair(row: &Row) -> bool {
    ["bare", "ringgate"].contains(&row.who.as_str())
}

/// Contestants, in the order in which they come.
fn names(rows: &[&Row]) -> Vec<String> {
    in_order(rows.iter().map(|row| row.who.clone()))
}

fn in_order(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut known = Vec::new();
    for one in all {
        if !known.contains(&one) {
            known.push(one);
        }
    }
    known
}

fn bars(title: &str, caption: &str, rows: &[&Row], group: impl Fn(&Row) -> String) -> Figure {
    let groups = in_order(rows.iter().map(|row| group(row)));
    let series = names(rows).into_iter().map(|who| {
        let value = |of: &String| {
            let found = rows.iter().find(|row| row.who == who && group(row) == *of);
            found.and_then(|row| row.value)
        };
        let values: Vec<Option<f64>> = groups.iter().map(value).collect();
        (who, values)
    });
    let bars = Bars {
        series: series.collect(),
        axis: rows.first().map(|row| row.unit.clone()).unwrap_or_default(),
        groups,
    };
    Figure {
        title: title.to_owned(),
        caption: caption.to_owned(),
        drawing: bars.draw().ok(),
        table: numbers(rows),
    }
}

/// Rates as a table.
fn numbers(rows: &[&Row]) -> Table {
    let heads = [
        "what",
        "who",
        "median",
        "least to greatest",
        "of bare, by rounds",
        "offered",
        "limit",
    ];
    let mut table = Table::new(&heads);
    for row in rows {
        let what = [
            row.method.clone(),
            row.mode.clone(),
            row.family.clone().replace("ipv4", ""),
            row.size.clone(),
            if row.flows == 0 {
                String::new()
            } else {
                format!("{} flows", short(row.flows as f64))
            },
        ];
        let what: Vec<String> = what.into_iter().filter(|part| !part.is_empty()).collect();
        table.rows.push(vec![
            what.join(", "),
            row.who.clone(),
            with_unit(row.value, &row.unit),
            spread(row),
            row.ratio
                .map(|ratio| format!("{ratio:.3}"))
                .unwrap_or_default(),
            row.offered.map(short).unwrap_or_default(),
            row.limit.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn with_unit(value: Option<f64>, unit: &str) -> String {
    match value {
        Some(value) if unit == "frames/s" => format!("{value:.0}"),
        Some(value) if unit == "ms" => format!("{value:.0} ms"),
        Some(value) => format!("{} {unit}", short(value)),
        None => "none".to_owned(),
    }
}

fn spread(row: &Row) -> String {
    match (row.least, row.most) {
        (Some(least), Some(most)) => format!("{} to {}", short(least), short(most)),
        _ => String::new(),
    }
}
