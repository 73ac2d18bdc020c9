use super::*;

#[test]
fn times_are_told_to_the_nanosecond() {
    assert_eq!(
        nanos_utc(1_763_748_000_123_456_789),
        "2025-11-21T18:00:00.123456789Z"
    );
    assert_eq!(nanos_utc(1), "1970-01-01T00:00:00.000000001Z");
}
