//! Compiles the traffic source's program (`bpf/blast.bpf.c`), for `src/blast.rs` to embed.

#[path = "../dataplane/bpf/compile.rs"]
mod compile;

fn main() -> std::process::ExitCode {
    compile::run("bpf/blast.bpf.c", "blast.bpf.o")
}
