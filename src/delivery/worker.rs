//! The worker: claims, decides, hands over, settles.
