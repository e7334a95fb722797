//! Connections to the relay, shared out among worker processes. Pure.

/// Shares `most` out among those who want so many each: everybody gets what they want or an equal part of what those who
/// want more leave, the first ones one more when it does not come out even.
pub fn fair_shares(most: u32, wanted: &[u32]) -> Vec<u32> {
    let mut shares = vec![0; wanted.len()];
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    // Who wants least is served first, and what they leave is parted among the others.
    order.sort_by_key(|place| (wanted[*place], std::cmp::Reverse(*place)));
    let mut left = most;
    for (served, place) in order.iter().enumerate() {
        let others = u32::try_from(order.len() - served).unwrap_or(u32::MAX);
        shares[*place] = wanted[*place].min(left / others);
        left -= shares[*place];
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_more_than_they_want_and_the_rest_is_parted_evenly() {
        assert_eq!(fair_shares(20, &[16, 16]), [10, 10]);
        assert_eq!(fair_shares(20, &[2, 16, 16]), [2, 9, 9]);
        assert_eq!(fair_shares(100, &[16, 16]), [16, 16]);
        assert_eq!(fair_shares(2, &[16, 16, 16]), [1, 1, 0]);
        assert_eq!(fair_shares(5, &[4, 4]), [3, 2]);
        assert_eq!(fair_shares(0, &[4]), [0]);
        assert!(fair_shares(5, &[]).is_empty());
    }
}
