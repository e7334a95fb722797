//! Deliveries: one message to one recipient, a row from the first moment to the last.
