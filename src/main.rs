//! The `bonito` binary: sets up what is process-wide, then hands over to the command line.

use std::process::ExitCode;

// Every request allocates and frees a handful of small buffers on whichever worker it lands; mimalloc's per-thread heaps
// make that 5 to 12 % cheaper than the system allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator asks for pages of two megabytes, and a page of which a few bytes are used counts in full: they nearly
    // double what a gateway of this size keeps resident. Without them nothing else changes, so a kernel that does not know
    // how to do that is no reason to stop.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    // A core dump is a copy of everything the process knows: keys, credentials, prompts. Where the system does not let us
    // forbid it, it is the operator's business.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Core,
        rustix::process::Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    );
    bonito::cli::main()
}
