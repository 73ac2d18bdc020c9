//! Compiles the traffic source's and the sink's programs (`bpf/*.bpf.c`), for `src/generator/` to embed.

use std::process::ExitCode;

#[path = "../dataplane/bpf/compile.rs"]
mod compile;

fn main() -> ExitCode {
    let source = compile::run("bpf/blast.bpf.c", "blast.bpf.o");
    let sink = compile::run("bpf/sink.bpf.c", "sink.bpf.o");
    if source == ExitCode::SUCCESS {
        sink
    } else {
        source
    }
}
