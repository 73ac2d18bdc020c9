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
fn what_is_sent_is_where_the_packet_is() {
    let (umem, descs) = umem(0);
    let region = Region::kernel(umem, descs.clone()).unwrap();
    let mut pool = Pool::of(Arc::clone(&region));
    let (fill, transmit) = (Holder::fill(0), Holder::transmit(1));
    let mut done = Vec::new();
    for (chunk, given) in descs.iter().enumerate() {
        let canonical = chunk * CHUNK_BYTES + HEADROOM_BYTES;
        let desc = region.submit(pool.take().unwrap(), fill).unwrap();
        assert_eq!(desc.addr(), canonical);

        let mut frame = region.received(given, 0).unwrap();
        assert!(region.received(given, 0).is_none(), "twice");
        frame.fill_from(b"inner");
        assert!(frame.grow_head(6));
        frame.bytes_mut()[..6].copy_from_slice(b"outer ");
        assert_eq!(frame.bytes(), b"outer inner");
        let sent = region.send(frame, transmit).unwrap();
        let address = canonical as u64 - 6;
        assert_eq!(sent, Sent { address, len: 11 });
        // The completion ring returns the address that was sent.
        assert!(region.completed(given, 0).is_none(), "another port's");
        let frame = region.completed(given, 1).unwrap();
        assert_eq!(
            frame.room(),
            CHUNK_BYTES - HEADROOM_BYTES,
            "an ordinary chunk again"
        );
        done.push(frame);
    }
    done.into_iter().for_each(|frame| pool.give(frame));
}

#[test]
fn a_head_grows_into_the_headroom_and_shrinks_to_the_last_byte() {
    let region = Region::plain(1);
    let mut pool = Pool::of(Arc::clone(&region));
    let mut frame = pool.take().unwrap();
    frame.fill_from(b"packet");
    let headroom = u16::try_from(HEADROOM_BYTES).unwrap();
    assert!(!frame.grow_head(headroom + 1));
    assert_eq!(frame.bytes(), b"packet");
    assert!(frame.grow_head(headroom));
    assert_eq!(
        (frame.len(), frame.room()),
        (6 + HEADROOM_BYTES, CHUNK_BYTES)
    );
    frame.bytes_mut()[..HEADROOM_BYTES].fill(b'x');
    assert!(!frame.grow_head(1));
    assert!(frame.shrink_head(headroom));
    assert_eq!(frame.bytes(), b"packet");
    assert!(!frame.shrink_head(6));
    assert!(frame.shrink_head(5));
    assert_eq!(frame.bytes(), b"t");
    assert!(frame.shrink_head(0));
    pool.give(frame);
    assert_eq!(pool.take().unwrap().room(), CHUNK_BYTES - HEADROOM_BYTES);
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
