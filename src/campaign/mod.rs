//! Campaigns: audience, schedule, fan-out.
