use std::time::Duration;

use super::{RETRY_AT_MOST, wait};

#[test]
fn waits_double_up_to_a_bound_and_chance_takes_up_to_a_half() {
    assert_eq!(wait(0, 1.0), Duration::from_millis(250));
    assert_eq!(wait(0, 0.0), Duration::from_millis(125));
    assert_eq!(wait(3, 1.0), Duration::from_secs(2));
    assert_eq!(wait(u32::MAX, 1.0), RETRY_AT_MOST);
}
