//! Compiles the steering program (`bpf/steer.bpf.c`), for `src/xsk/program.rs` to embed.

#[path = "bpf/compile.rs"]
mod compile;

fn main() -> std::process::ExitCode {
    compile::run("bpf/steer.bpf.c", "steer.bpf.o")
}
