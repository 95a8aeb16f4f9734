//! glibc gives the end of a heap back to the operating system, and keeps what was freed in the middle until it is asked for it. This asks.

/// Has what was freed given back, as far as it fills pages. Takes as long as it takes to look at all that is free: for a few milliseconds nobody can
/// allocate who has to do with the heap that is being looked at. Does nothing where the C library is not glibc.
pub fn malloc_trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::malloc_trim(0);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    unsafe extern "C" {
        /// May be called by any thread at any time (malloc_trim(3): MT-Safe).
        pub safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
}
