//! H7: links as mail programs, scanners and people mangle them.
