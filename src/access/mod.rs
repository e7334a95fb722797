//! API keys, roles, who did what.
