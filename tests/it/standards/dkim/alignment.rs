//! D1: keys that cannot sign well end the start, with words that say which and what to do.
