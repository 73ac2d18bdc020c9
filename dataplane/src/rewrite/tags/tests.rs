use ringgate_conntrack::Endpoint;

use super::super::{Action, rewrite};
use super::*;
use crate::parse::parse;
use crate::testing::{TAGGINGS, at, framed, make_partial, tagged, tcp, udp};
use crate::wire::ethernet::Mac;
use crate::wire::vlan::{TPID_CUSTOMER, TPID_SERVICE, Tag};

const CLIENT: [&str; 2] = ["10.1.0.2:4242", "[fd00:1::2]:4242"];
const VIP: [&str; 2] = ["10.100.0.1:80", "[fd00:100::1]:80"];
const BACKEND: [&str; 2] = ["10.2.0.11:8080", "[fd00:2::11]:8080"];

/// A way out with these tags.
fn hop(tags: Tags, keeps_tags: bool) -> Hop {
    Hop {
        port: 1,
        destination: Mac([2; 6]),
        source: Mac([4; 6]),
        mtu: 1500,
        tags,
        keeps_tags,
    }
}

fn rewritten(frame: &[u8], action: Action<'_>, hop: &Hop) -> Vec<u8> {
    let mut frame = framed(frame);
    let packet = parse(frame.bytes(), true).unwrap();
    rewrite(&mut frame, &packet, &action, hop).unwrap();
    frame.bytes().to_vec()
}

/// What ways have: none, one and two, without a priority of their own.
const WAYS: [Tags; 3] = {
    let inner = Tag {
        tpid: TPID_CUSTOMER,
        tci: 7,
    };
    let outer = Tag {
        tpid: TPID_SERVICE,
        tci: 300,
    };
    [Tags::NONE, Tags::one(inner), Tags::two(outer, inner)]
};

/// The outer tag's priority and drop eligibility.
fn priority(tags: Tags) -> u16 {
    tags.outer().map_or(0, |tag| tag.tci & 0xF000)
}

/// Every number of tags on either side: the frame is the untagged one, rewritten as if there were no
/// tags in the world, with the tags of the way in it.
#[test]
fn a_frame_leaves_with_the_tags_of_its_way_and_the_priority_that_it_came_with() {
    for family in 0..2 {
        let backend = Endpoint::from_socket(at(BACKEND[family]));
        for action in [Action::Direct, Action::ToBackend(backend)] {
            let mut unfinished = udp(CLIENT[family], VIP[family], b"odd");
            make_partial(&mut unfinished);
            for plain in [
                tcp(CLIENT[family], VIP[family], 0x18, b"some payload"),
                udp(CLIENT[family], VIP[family], b"odd"),
                unfinished,
            ] {
                let untagged = rewritten(&plain, action, &hop(Tags::NONE, false));
                for came in TAGGINGS {
                    for way in WAYS {
                        let leaves = rewritten(&tagged(&plain, came), action, &hop(way, false));
                        let expected = tagged(&untagged, way.with_priority_of(came));
                        assert_eq!(leaves, expected, "{came:?} in, {way:?} out");
                        let tags = Framing::of(&leaves).unwrap().tags;
                        assert!(tags.ids().eq(way.ids()));
                        let kept = if way.is_none() { 0 } else { priority(came) };
                        assert_eq!(priority(tags), kept, "{came:?} in, {way:?} out");
                    }
                }
            }
        }
    }
}

#[test]
fn where_the_way_has_none_tags_can_be_kept() {
    let plain = tcp(CLIENT[0], VIP[0], 0x18, b"some payload");
    let to_backend = Action::ToBackend(Endpoint::from_socket(at(BACKEND[0])));
    let untagged = rewritten(&plain, to_backend, &hop(Tags::NONE, true));
    for came in TAGGINGS {
        let kept = rewritten(&tagged(&plain, came), to_backend, &hop(Tags::NONE, true));
        assert_eq!(kept, tagged(&untagged, came), "{came:?}");
        let given = rewritten(&tagged(&plain, came), to_backend, &hop(WAYS[1], true));
        assert_eq!(
            given,
            tagged(&untagged, WAYS[1].with_priority_of(came)),
            "{came:?}"
        );
    }
}

#[test]
fn a_packet_that_has_lost_its_tags_gets_them_as_one_that_bears_them() {
    let plain = udp(CLIENT[1], VIP[1], b"odd");
    for came in TAGGINGS {
        for (way, keeps) in [(WAYS[0], true), (WAYS[0], false), (WAYS[2], false)] {
            let mut bears = framed(&tagged(&plain, came));
            set_tags(&mut bears, came, &hop(way, keeps)).unwrap();
            let mut lost = framed(&plain);
            set_tags(&mut lost, came, &hop(way, keeps)).unwrap();
            assert_eq!(bears.bytes(), lost.bytes(), "{came:?} in, {way:?} out");
        }
    }
}

#[test]
fn without_room_in_front_nothing_leaves() {
    let mut frame = framed(&udp(CLIENT[0], VIP[0], b"x"));
    while frame.grow_head(1) {}
    let before = frame.bytes().to_vec();
    let result = set_tags(&mut frame, Tags::NONE, &hop(WAYS[2], false));
    assert_eq!(result, Err(DropReason::Truncated));
    assert_eq!(frame.bytes(), before);
    let mut short = framed(&[0; 13]);
    let result = set_tags(&mut short, Tags::NONE, &hop(WAYS[1], false));
    assert_eq!(result, Err(DropReason::Truncated));
}
