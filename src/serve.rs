//! Web and workers as tasks, one shutdown.
