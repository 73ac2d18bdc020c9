use super::*;
use proptest::prelude::*;

#[test]
fn a_pool_starts_with_every_chunk_once() {
    let mut pool = Pool::anonymous(8);
    let frames: Vec<Frame> = std::iter::from_fn(|| pool.take()).collect();
    let chunks: Vec<u32> = frames.iter().map(Frame::chunk).collect();
    assert_eq!(chunks, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(pool.is_empty());
    for frame in frames {
        pool.give(frame);
    }
    assert_eq!((pool.len(), pool.capacity()), (8, 8));
}

#[test]
fn frames_keep_their_own_bytes() {
    let mut pool = Pool::anonymous(3);
    let mut frames: Vec<Frame> = std::iter::from_fn(|| pool.take()).collect();
    for (i, frame) in (1u8..).zip(&mut frames) {
        let room = frame.room();
        assert_eq!(
            frame.fill_from(&vec![i; room]),
            CHUNK_BYTES - HEADROOM_BYTES
        );
    }
    for (i, frame) in (1u8..).zip(&frames) {
        assert!(frame.bytes().iter().all(|&byte| byte == i));
    }
    for frame in frames {
        pool.give(frame);
    }
}

#[test]
fn a_length_is_cut_at_the_room() {
    let mut pool = Pool::anonymous(1);
    let mut frame = pool.take().unwrap();
    frame.set_len(usize::MAX);
    assert_eq!(frame.len(), frame.room());
    assert_eq!(frame.fill_from(&[7; 4 * CHUNK_BYTES]), frame.room());
    frame.set_len(3);
    assert_eq!(frame.bytes(), [7, 7, 7]);
    frame.prefetch();
    pool.give(frame);
    assert!(pool.take().is_some_and(|frame| frame.is_empty()));
}

#[test]
fn nonsense_is_not_minted() {
    let region = Region::plain(4);
    let fill = Holder::fill(2);
    let mut pool = Pool::of(Arc::clone(&region));
    let frame = pool.take().unwrap();
    let chunk = region.surrender(frame, fill);
    assert!(region.mint(4, 256, 60, fill).is_none(), "no such chunk");
    assert!(
        region.mint(usize::MAX, 256, 60, fill).is_none(),
        "no such chunk"
    );
    assert!(
        region.mint(chunk, 256, 1793, fill).is_none(),
        "past the chunk"
    );
    assert!(
        region.mint(chunk, 256, usize::MAX, fill).is_none(),
        "overflow"
    );
    assert!(
        region.mint(chunk, 2048, 0, fill).is_none(),
        "outside the chunk"
    );
    assert!(
        region.mint(chunk, 256, 60, Holder::fill(1)).is_none(),
        "another port's"
    );
    assert!(
        region.mint(chunk, 256, 60, Holder::transmit(2)).is_none(),
        "on the other side"
    );
    assert!(
        region.mint(chunk, 256, 60, Holder::TOKEN).is_none(),
        "a second token"
    );
    let frame = region.mint(chunk, 256, 1792, fill).unwrap();
    assert!(region.mint(chunk, 256, 60, fill).is_none(), "twice");
    assert_eq!(frame.len(), 1792);
    pool.give(frame);
    assert_eq!(pool.len(), 4);
}

#[test]
fn a_moved_packet_start_is_undone_by_the_pool() {
    let region = Region::plain(2);
    let mut pool = Pool::of(Arc::clone(&region));
    let frame = pool.take().unwrap();
    let chunk = region.surrender(frame, Holder::fill(0));
    let frame = region
        .mint(chunk, HEADROOM_BYTES - 20, 80, Holder::fill(0))
        .unwrap();
    assert_eq!(frame.room(), CHUNK_BYTES - HEADROOM_BYTES + 20);
    pool.give(frame);
    let frame = pool.take().unwrap();
    assert_eq!(
        (frame.room(), frame.len()),
        (CHUNK_BYTES - HEADROOM_BYTES, 0)
    );
    pool.give(frame);
}

#[test]
fn a_foreign_frame_is_refused_and_counted() {
    let (mut ours, mut theirs) = (Pool::anonymous(2), Pool::anonymous(2));
    let foreign = theirs.take().unwrap();
    ours.give(foreign);
    assert_eq!((ours.len(), ours.foreign()), (2, 1));
    let mut queue = Queue::new(Arc::clone(ours.region()), 2);
    let foreign = theirs.take().unwrap();
    assert!(queue.push(foreign).is_err());
}

#[test]
fn a_stray_frame_outlives_its_pool() {
    let mut pool = Pool::anonymous(2);
    let mut frame = pool.take().unwrap();
    frame.fill_from(b"still here");
    drop(pool);
    assert_eq!(frame.bytes(), b"still here");
    frame.bytes_mut().fill(0);
}

#[test]
fn a_queue_is_bounded_and_in_order() {
    let mut pool = Pool::anonymous(3);
    let mut queue = Queue::new(Arc::clone(pool.region()), 2);
    for _ in 0..2 {
        assert!(queue.push(pool.take().unwrap()).is_ok());
    }
    let third = queue.push(pool.take().unwrap()).unwrap_err();
    assert_eq!((queue.len(), queue.room(), third.chunk()), (2, 0, 2));
    assert_eq!(queue.pop().map(|frame| frame.chunk()), Some(0));
    let region = Arc::clone(pool.region());
    drop(queue);
    assert_eq!(
        region.held_by(Holder::TOKEN),
        2,
        "the two that are dropped in this test"
    );
}

proptest! {
    /// Whatever is taken, passed to the kernel's side and back, no chunk has two tokens and none is
    /// lost.
    #[test]
    fn chunks_are_conserved(
        steps in prop::collection::vec((0u8..6, any::<prop::sample::Index>()), 0..400),
    ) {
        let region = Region::plain(16);
        let mut pool = Pool::of(Arc::clone(&region));
        let mut tokens: Vec<Frame> = Vec::new();
        let mut kernel: Vec<(usize, Holder)> = Vec::new();
        for (step, pick) in steps {
            match step {
                0 => tokens.extend(pool.take()),
                1 | 2 if !tokens.is_empty() => {
                    let frame = tokens.swap_remove(pick.index(tokens.len()));
                    let holder = if step == 1 { Holder::fill(3) } else { Holder::transmit(63) };
                    kernel.push((region.surrender(frame, holder), holder));
                }
                3 if !kernel.is_empty() => {
                    let (chunk, holder) = kernel.swap_remove(pick.index(kernel.len()));
                    tokens.push(region.mint(chunk, 256, 60, holder).unwrap());
                    prop_assert!(region.mint(chunk, 256, 60, holder).is_none());
                }
                4 if !tokens.is_empty() => {
                    pool.give(tokens.swap_remove(pick.index(tokens.len())));
                }
                _ => prop_assert!(region.mint(pick.index(16), 256, 60, Holder::NOBODY).is_none()),
            }
            prop_assert_eq!(pool.len() + tokens.len() + kernel.len(), 16);
            prop_assert_eq!(region.held_by(Holder::TOKEN), pool.len() + tokens.len());
        }
    }
}
