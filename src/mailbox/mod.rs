//! The embedded mailbox: a real SMTP receiver and its pages, for trying out.
