//! Opt-outs and opt-ins: events and what they amount to.
