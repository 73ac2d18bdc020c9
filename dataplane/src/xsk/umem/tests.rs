use super::*;
use crate::xsk::Pool;
use proptest::prelude::*;

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

/// A UMEM of four chunks, each packet `headroom` bytes further in than the kernel puts it.
fn umem(headroom: u32) -> (Umem, Vec<FrameDesc>) {
    let config = xsk_rs::config::UmemConfig::builder()
        .frame_size(2048.try_into().unwrap())
        .frame_headroom(headroom)
        .build()
        .unwrap();
    Umem::new(config, 4.try_into().unwrap(), false).unwrap()
}

#[test]
#[ignore = "needs CAP_NET_RAW"]
fn descriptors_follow_their_packets() {
    // In zero-copy mode a program may move a packet's start. xsk-rs lets nobody set an address, so
    // these are another memory's.
    let (_other, moved) = umem(64);
    let (umem_of_region, descs) = umem(0);
    let region = Region::kernel(umem_of_region, descs).unwrap();
    let mut pool = Pool::of(Arc::clone(&region));
    let (fill, transmit) = (Holder::fill(0), Holder::transmit(1));
    for (chunk, moved) in moved.iter().enumerate() {
        let canonical = chunk * CHUNK_BYTES + HEADROOM_BYTES;
        let desc = region.submit(pool.take().unwrap(), fill).unwrap();
        assert_eq!((desc.addr(), desc.lengths().data()), (canonical, 0));

        let mut frame = region.received(moved, 0).unwrap();
        assert!(region.received(moved, 0).is_none(), "twice");
        assert_eq!(frame.room(), CHUNK_BYTES - HEADROOM_BYTES - 64);
        frame.fill_from(b"moved");
        let sent = region.submit(frame, transmit).unwrap();
        assert_eq!((sent.addr(), sent.lengths().data()), (canonical + 64, 5));
        let Memory::Kernel(memory) = &*region.memory else {
            unreachable!()
        };
        // SAFETY: the descriptor is of this UMEM, no token of its chunk exists, and no device has it.
        assert_eq!(unsafe { memory.umem.data(&sent) }.contents(), b"moved");

        assert!(region.completed(&sent, 0).is_none(), "another port's");
        let frame = region.completed(&sent, 1).unwrap();
        let sent = region.submit(frame, transmit).unwrap();
        assert_eq!(sent.addr(), canonical, "an ordinary chunk again");
        let desc = region
            .submit(region.completed(&sent, 1).unwrap(), fill)
            .unwrap();
        assert_eq!(desc.addr(), canonical);
        pool.give(region.received(moved, 0).unwrap());
        let mut frame = pool.take().unwrap();
        frame.fill_from(b"from the pool");
        let sent = region.submit(frame, transmit).unwrap();
        assert_eq!((sent.addr(), sent.lengths().data()), (canonical, 13));
    }
    assert_eq!(region.reclaim(transmit, |frame| pool.give(frame)), 4);
    assert_eq!(pool.len(), 4);
}

#[test]
#[ignore = "needs CAP_NET_RAW"]
fn a_memory_laid_out_otherwise_is_refused() {
    let (umem_of_region, descs) = umem(64);
    assert!(Region::kernel(umem_of_region, descs).is_none());
    let (umem_of_region, _) = umem(0);
    assert!(Region::kernel(umem_of_region, Vec::new()).is_none());
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
