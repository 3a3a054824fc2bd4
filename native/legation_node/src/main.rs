fn main() -> std::process::ExitCode {
    legation_node::cli::main()
}
