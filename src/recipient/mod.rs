//! Recipients: people, filter, import.
