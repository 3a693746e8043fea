//! Frames of every kind and mode, broken in every way: nothing that is wrong leaves, and each has one end and one count.

use crate::support::{
    Lab, Size,
    every::{assert_allowed, conversation, plan, sums_are_right},
    frames::{D0, D1, checksum},
    text::text,
};

/// A lab in which the whole conversation has been held.
fn talked(workers: usize) -> Lab {
    let mut lab = Lab::sized(plan(), Size { workers, connections: 256, ..Size::default() });
    for (port, frame) in conversation() {
        brought(&mut lab, port, &frame);
    }
    lab
}

/// What a frame that comes in by a port makes leave: all of it must be allowed, and its checksums right if the frame's are.
fn brought(lab: &mut Lab, port: usize, frame: &[u8]) -> Vec<Vec<u8>> {
    let was_right = sums_are_right(frame) != Some(false);
    let out = lab.send_by(port, &[frame.to_vec()]);
    for sent in &out {
        assert_allowed(sent);
        assert!(!was_right || sums_are_right(sent) != Some(false), "{frame:02x?} became {sent:02x?}");
    }
    lab.assert_accounted(0);
    out
}

fn is_v6(frame: &[u8]) -> bool {
    frame[12] == 0x86
}

/// Where the transport header of a frame of the conversation begins.
fn transport(frame: &[u8]) -> usize {
    if is_v6(frame) { 54 } else { 14 + usize::from(frame[14] & 15) * 4 }
}

/// The checksum of the IPv4 header made right again.
fn repaired(mut frame: Vec<u8>) -> Vec<u8> {
    if !is_v6(&frame) {
        let end = (14 + usize::from(frame[14] & 15) * 4).min(frame.len());
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..end]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

#[test]
fn every_frame_of_the_conversation_has_its_effect() {
    let mut lab = Lab::sized(plan(), Size { connections: 256, ..Size::default() });
    let mut silent = Vec::new();
    for (number, (port, frame)) in conversation().into_iter().enumerate() {
        if brought(&mut lab, port, &frame).is_empty() {
            silent.push((number, text(&frame)));
        }
    }
    // ESP, and an error about nothing, of a server that may only leave by another address; the first fragments of SCTP, which
    // leave with the last.
    assert_eq!(silent.len(), 4, "{silent:#?}");
    assert!(lab.connections() >= 15, "{:?}", lab.list());
}

#[test]
fn a_frame_of_any_mode_cut_anywhere_goes_nowhere() {
    let mut lab = talked(1);
    for (port, frame) in conversation() {
        for len in 0..frame.len() {
            let out = brought(&mut lab, port, &frame[..len]);
            assert!(out.is_empty(), "cut to {len}: {frame:02x?}");
        }
        lab.wait(1_000);
    }
}

#[test]
fn wrong_lengths_do_no_harm_in_any_mode() {
    let mut lab = talked(2);
    for (port, frame) in conversation() {
        let l4 = transport(&frame);
        let lengths = if is_v6(&frame) { vec![18, 19] } else { vec![14, 16, 17] };
        let quoted = l4 + 8;
        // TCP's data offset, UDP's length, a chunk's, the lengths of what an error quotes.
        let all =
            lengths.into_iter().chain([l4 + 4, l4 + 5, l4 + 12, l4 + 14, l4 + 15]).chain(quoted..quoted + 6);
        for at in all.filter(|at| *at < frame.len()) {
            for value in (0..=255).step_by(5).chain([1, 4, 7, 8, 19, 20, 21, 39, 40, 41]) {
                let mut broken = frame.clone();
                broken[at] = value;
                brought(&mut lab, port, &broken);
                brought(&mut lab, port, &repaired(broken));
            }
        }
        lab.wait(1_000);
    }
}

#[test]
fn wrong_checksums_are_not_made_right() {
    let mut lab = talked(1);
    for (port, frame) in conversation() {
        for at in transport(&frame)..frame.len() {
            let mut broken = frame.clone();
            broken[at] ^= 0x41;
            let was = sums_are_right(&broken);
            for sent in brought(&mut lab, port, &broken) {
                // Answers of the director are its own, and errors about the frame quote it.
                let is_own = sent[30..34] == frame[26..30] || is_v6(&frame);
                assert!(
                    is_own || was.is_none() || sums_are_right(&sent) == was,
                    "{broken:02x?}: {sent:02x?}"
                );
            }
        }
        if !is_v6(&frame) {
            let mut broken = frame.clone();
            broken[24] ^= 1;
            assert!(brought(&mut lab, port, &broken).is_empty());
        }
        lab.wait(1_000);
    }
}

/// With a header between: IPv4 options, or IPv6 extension headers of these types.
fn extended(frame: &[u8], option: &[u8], kinds: &[u8]) -> Vec<u8> {
    if is_v6(frame) {
        let mut out = frame[..54].to_vec();
        let last = out[20];
        out[20] = kinds[0];
        for (i, kind) in kinds.iter().enumerate() {
            let next = kinds.get(i + 1).copied().unwrap_or(last);
            // Padding, or of a fragment header: the only one.
            out.extend(if *kind == 44 { [next, 0, 0, 0, 0, 0, 0, 9] } else { [next, 0, 1, 4, 0, 0, 0, 0] });
        }
        out.extend(&frame[54..]);
        let len = (out.len() - 54) as u16;
        out[18..20].copy_from_slice(&len.to_be_bytes());
        return out;
    }
    let mut out = [&frame[..34], option, &frame[34..]].concat();
    out[14] = 0x45 + (option.len() / 4) as u8;
    let len = (out.len() - 14) as u16;
    out[16..18].copy_from_slice(&len.to_be_bytes());
    repaired(out)
}

#[test]
fn options_and_extension_headers_are_carried_in_every_mode() {
    let mut lab = talked(1);
    for (number, (port, frame)) in conversation().into_iter().enumerate() {
        let plain = brought(&mut lab, port, &frame).len();
        for kinds in [&[60][..], &[0, 60], &[44], &[0, 60, 44, 60], &[60; 8]] {
            let options = &[1_u8, 1, 1, 1, 7, 7, 4, 0, 0, 0, 0, 0][..if kinds.len() > 1 { 12 } else { 4 }];
            let frame = extended(&frame, options, kinds);
            let out = brought(&mut lab, port, &frame);
            assert_eq!(out.len(), plain, "number {number}, {kinds:?}: {frame:02x?}, {:?}", lab.all_drops());
        }
        lab.wait(1_000);
    }
}

#[test]
fn frames_as_large_as_a_buffer_do_no_harm_in_any_mode() {
    let mut lab = talked(1);
    for (port, frame) in conversation() {
        for padding in [1, 1_400, 1_500, 1_700, 1_800, 9_000] {
            // Padding behind the packet, and a packet as long as that.
            let mut long = [&frame[..], &vec![0; padding]].concat();
            long.truncate(1_856);
            brought(&mut lab, port, &long);
            let at = if is_v6(&frame) { 18 } else { 16 };
            let len = (long.len() - if is_v6(&frame) { 54 } else { 14 }) as u16;
            long[at..at + 2].copy_from_slice(&len.to_be_bytes());
            brought(&mut lab, port, &repaired(long));
            lab.wait(1_000);
        }
    }
}

#[test]
fn what_the_director_sent_and_comes_back_ends() {
    let mut lab = talked(1);
    for (port, frame) in conversation() {
        for sent in brought(&mut lab, port, &frame) {
            // By the port that it left by, as a broken switch returns it: until it has ended, which its TTL sees to.
            let mut round = vec![sent];
            for _ in 0..70 {
                let Some(mut frame) = round.pop() else { break };
                let by = usize::from(frame[6..12] == D1);
                frame[..6].copy_from_slice(if by == 0 { &D0 } else { &D1 });
                let out = brought(&mut lab, by, &frame);
                assert!(out.len() <= 1, "it does not multiply: {frame:02x?}");
                round.extend(out);
            }
            assert!(round.is_empty(), "it goes round for ever: {round:02x?}");
        }
        lab.wait(1_000);
    }
}
