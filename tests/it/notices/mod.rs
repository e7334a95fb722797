//! A notice from its publication to the day on which it takes effect, for many people.

mod journey;
