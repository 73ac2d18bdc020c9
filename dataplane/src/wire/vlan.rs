//! VLAN tags (IEEE 802.1Q clause 9): up to two of them between the hardware addresses and the
//! EtherType, the outer one first.
//!
//! More than two are not described: provider bridging knows two (clause 3, C-tag and S-tag), and
//! so does the kernel's offload. What follows a second tag is taken for an EtherType, and a third
//! tag's is not that of IP.

use std::fmt;

use super::ethernet;

/// Length of one tag on the wire, bytes.
pub const TAG: usize = 4;

/// Length of the two hardware addresses in front of the tags, bytes.
pub const ADDRESSES: usize = 12;

/// What customers' tags begin with (802.1Q).
pub const TPID_CUSTOMER: u16 = 0x8100;
/// What providers' tags begin with (802.1ad).
pub const TPID_SERVICE: u16 = 0x88A8;
/// What outer tags began with before 802.1ad; switches still send it.
pub const TPID_OLD: u16 = 0x9100;

/// The VLAN's number within the control information.
const ID: u16 = 0x0FFF;

/// One tag, as it stands on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag {
    /// Tag protocol identifier: what stands where an untagged frame has its EtherType.
    pub tpid: u16,
    /// Tag control information: priority (PCP, three bits), drop eligibility (DEI, one bit) and
    /// the VLAN's number (VID, twelve).
    pub tci: u16,
}

impl Tag {
    /// The VLAN's number; 0 says that the tag carries a priority only.
    #[inline]
    #[must_use]
    pub const fn id(self) -> u16 {
        self.tci & ID
    }

    /// The same VLAN with the priority and the drop eligibility of `other`.
    #[must_use]
    const fn with_priority_of(self, other: Self) -> Self {
        Self {
            tpid: self.tpid,
            tci: self.tci & ID | other.tci & !ID,
        }
    }

    const fn word(self) -> u32 {
        (self.tpid as u32) << 16 | self.tci as u32
    }

    /// `None` for the word that is no tag: no protocol identifier is 0.
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of it")]
    const fn from_word(word: u32) -> Option<Self> {
        if word == 0 {
            return None;
        }
        Some(Self {
            tpid: (word >> 16) as u16,
            tci: word as u16,
        })
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.tpid, self.tci)
    }
}

/// None, one or two tags. One word: to ask whether there are any is one comparison.
// The outer tag in the high half, the inner one in the low half; zero: no tag. One tag is an
// outer one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tags(u64);

impl Tags {
    /// No tags.
    pub const NONE: Self = Self(0);

    /// This tag alone.
    #[must_use]
    pub const fn one(tag: Tag) -> Self {
        Self((tag.word() as u64) << 32)
    }

    /// These two.
    #[must_use]
    pub const fn two(outer: Tag, inner: Tag) -> Self {
        Self((outer.word() as u64) << 32 | inner.word() as u64)
    }

    /// These and `tag` inside them: what a VLAN device on a device with these tags sends. `None`
    /// when it would be the third.
    #[must_use]
    pub fn with_inner(self, tag: Tag) -> Option<Self> {
        match (self.outer(), self.inner()) {
            (None, _) => Some(Self::one(tag)),
            (Some(outer), None) => Some(Self::two(outer, tag)),
            (Some(_), Some(_)) => None,
        }
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The outer one, or the only one.
    #[must_use]
    pub const fn outer(self) -> Option<Tag> {
        Tag::from_word((self.0 >> 32) as u32)
    }

    /// The inner one of two.
    #[must_use]
    pub const fn inner(self) -> Option<Tag> {
        #[expect(clippy::cast_possible_truncation, reason = "the low half")]
        Tag::from_word(self.0 as u32)
    }

    /// How many there are, at most 2.
    #[must_use]
    pub const fn count(self) -> usize {
        self.outer().is_some() as usize + self.inner().is_some() as usize
    }

    /// What they take on the wire, bytes.
    #[must_use]
    pub const fn wire_len(self) -> usize {
        self.count() * TAG
    }

    /// As they stand on the wire, in the first [`wire_len`](Self::wire_len) bytes.
    #[must_use]
    pub const fn to_wire(self) -> [u8; 2 * TAG] {
        self.0.to_be_bytes()
    }

    /// The VLANs' numbers, outer first. A tag that carries only a priority names none
    /// (802.1Q clause 6.9.1: such a frame is untagged).
    pub fn ids(self) -> impl Iterator<Item = u16> {
        let tags = [self.outer(), self.inner()].into_iter().flatten();
        tags.map(Tag::id).filter(|id| *id != 0)
    }

    /// These, with the priority and drop eligibility of the outer one of `other`, where both have
    /// one.
    #[must_use]
    pub fn with_priority_of(self, other: Self) -> Self {
        let (Some(own), Some(theirs)) = (self.outer(), other.outer()) else {
            return self;
        };
        let outer = own.with_priority_of(theirs);
        match self.inner() {
            Some(inner) => Self::two(outer, inner),
            None => Self::one(outer),
        }
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tags = [self.outer(), self.inner()].into_iter().flatten();
        f.debug_list().entries(tags).finish()
    }
}

/// What stands in front of a frame's network header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framing {
    /// The tags.
    pub tags: Tags,
    /// The EtherType behind them.
    pub ethertype: u16,
    /// Where the network header begins, bytes from the start of the frame: 14, 18 or 22.
    pub network: usize,
}

impl Framing {
    /// The tags and the type of `frame`; `None` when it ends within them.
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let mut tags = Tags::NONE;
        let mut network = ethernet::HEADER;
        loop {
            let field: [u8; 2] = *frame.get(..network)?.last_chunk()?;
            let ethertype = u16::from_be_bytes(field);
            let tagged = if is_tag(ethertype) {
                let tci: [u8; 2] = *frame.get(network..)?.first_chunk()?;
                tags.with_inner(Tag {
                    tpid: ethertype,
                    tci: u16::from_be_bytes(tci),
                })
            } else {
                None
            };
            // No tag, or one too many: what stands here is what there is.
            let Some(tagged) = tagged else {
                return Some(Self {
                    tags,
                    ethertype,
                    network,
                });
            };
            tags = tagged;
            network += TAG;
        }
    }
}

/// Whether a tag begins with this.
const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, TPID_CUSTOMER | TPID_SERVICE | TPID_OLD)
}

#[cfg(test)]
mod tests {
    use etherparse::{EtherType, Ethernet2Header, SingleVlanHeader, VlanId, VlanPcp};

    use super::*;

    const HUNDRED: Tag = Tag {
        tpid: TPID_CUSTOMER,
        tci: 100,
    };
    const TWO_HUNDRED: Tag = Tag {
        tpid: TPID_SERVICE,
        tci: 0xB0C8,
    };

    /// A frame of these tags, with an EtherType and four bytes behind it, by the oracle.
    fn frame(tags: &[Tag], ethertype: u16) -> Vec<u8> {
        let mut types = tags.iter().map(|tag| tag.tpid).chain([ethertype]);
        let mut next = || EtherType(types.next().unwrap());
        let ethernet = Ethernet2Header {
            source: [2; 6],
            destination: [4; 6],
            ether_type: next(),
        };
        let mut frame = ethernet.to_bytes().to_vec();
        for tag in tags {
            let tag = SingleVlanHeader {
                pcp: VlanPcp::try_new(u8::try_from(tag.tci >> 13).unwrap()).unwrap(),
                drop_eligible_indicator: tag.tci & 0x1000 != 0,
                vlan_id: VlanId::try_new(tag.id()).unwrap(),
                ether_type: next(),
            };
            frame.extend(tag.to_bytes());
        }
        frame.extend([0xAA; 4]);
        frame
    }

    #[test]
    fn up_to_two_tags_are_read_as_the_oracle_writes_them() {
        let old = Tag {
            tpid: TPID_OLD,
            ..TWO_HUNDRED
        };
        let cases: [(&[Tag], Tags); 4] = [
            (&[], Tags::NONE),
            (&[HUNDRED], Tags::one(HUNDRED)),
            (&[TWO_HUNDRED, HUNDRED], Tags::two(TWO_HUNDRED, HUNDRED)),
            (&[old, HUNDRED], Tags::two(old, HUNDRED)),
        ];
        for (list, tags) in cases {
            let frame = frame(list, ethernet::TYPE_IPV6);
            let framing = Framing::of(&frame).unwrap();
            let expected = Framing {
                tags,
                ethertype: ethernet::TYPE_IPV6,
                network: 14 + 4 * list.len(),
            };
            assert_eq!(framing, expected);
            assert_eq!(
                (tags.count(), tags.wire_len()),
                (list.len(), 4 * list.len())
            );
            assert_eq!(
                tags.to_wire()[..tags.wire_len()],
                frame[12..framing.network - 2]
            );
            for len in 0..framing.network {
                assert_eq!(Framing::of(&frame[..len]), None, "{len} bytes");
            }
        }
    }

    #[test]
    fn a_third_tag_is_no_ip() {
        let framing = Framing::of(&frame(&[HUNDRED; 3], ethernet::TYPE_IPV4)).unwrap();
        assert_eq!((framing.ethertype, framing.network), (TPID_CUSTOMER, 22));
    }

    #[test]
    fn tags_stack_up_to_two() {
        let one = Tags::NONE.with_inner(TWO_HUNDRED).unwrap();
        assert_eq!(one, Tags::one(TWO_HUNDRED));
        let two = one.with_inner(HUNDRED).unwrap();
        assert_eq!(
            (two.outer(), two.inner()),
            (Some(TWO_HUNDRED), Some(HUNDRED))
        );
        assert_eq!(two.with_inner(HUNDRED), None);
        assert_eq!(two.ids().collect::<Vec<_>>(), [200, 100]);
        let priority_only = Tag {
            tci: 0xE000,
            ..HUNDRED
        };
        assert_eq!(Tags::one(priority_only).ids().count(), 0);
        assert!(Tags::NONE.is_none() && !Tags::one(priority_only).is_none());
    }

    #[test]
    fn the_outer_priority_goes_from_tag_to_tag() {
        let sent = Tags::two(HUNDRED, HUNDRED);
        let came = Tags::two(TWO_HUNDRED, TWO_HUNDRED);
        let outer = Tag {
            tci: 0xB064,
            ..HUNDRED
        };
        assert_eq!(sent.with_priority_of(came), Tags::two(outer, HUNDRED));
        assert_eq!(Tags::one(HUNDRED).with_priority_of(came), Tags::one(outer));
        assert_eq!(sent.with_priority_of(Tags::NONE), sent);
        assert_eq!(Tags::NONE.with_priority_of(came), Tags::NONE);
    }
}
