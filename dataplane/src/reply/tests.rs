//! Every frame here was made by scapy 2.5.0, not by this crate.

use super::*;
use crate::{parse, wire::checksum::tests::slow};
use pointsman_hugepages::{Buffer, Options, PageChoice, Pool, PoolOptions};

const DIRECTOR: [u8; 6] = [2, 0, 0, 0, 0, 0xd0];
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 0x0c];

/// Who has 10.0.0.100?
const ARP_REQ: &str = "\
    ffffffffffff02000000000c0806000108000604000102000000000c0a0000020000000000000a000064";

/// Its reply.
const ARP_REP: &str = "\
    02000000000c0200000000d0080600010800060400020200000000d00a00006402000000000c0a000002";

/// 10.0.0.100 announced.
const GARP: &str = "\
    ffffffffffff0200000000d0080600010800060400010200000000d00a000064ffffffffffff0a000064";

/// fd00:1::100 announced.
const UNA: &str = "\
    3333000000010200000000d086dd6000000000203afffd000001000000000000000000000100ff020000000000000000\
    000000000001880057cc20000000fd00000100000000000000000000010002010200000000d0";

/// Who has fd00:1::100?
const NS: &str = "\
    3333ff00010002000000000c86dd6000000000203afffd000001000000000000000000000002ff020000000000000000\
    0001ff00010087007b8d00000000fd000001000000000000000000000100010102000000000c";

/// Its advertisement.
const NA: &str = "\
    02000000000c0200000000d086dd6000000000203afffd000001000000000000000000000100fd000001000000000000\
    000000000002880019cc60000000fd00000100000000000000000000010002010200000000d0";

/// Does anyone have fd00:1::100 already?
const DAD: &str = "\
    3333ff00010002000000000c86dd6000000000183aff00000000000000000000000000000000ff020000000000000000\
    0001ff00010087007ba600000000fd000001000000000000000000000100";

/// From fe80::d0: does this station still have fd00:1::2?
const NS_UNICAST: &str = "\
    02000000000c0200000000d086dd6000000000203afffe8000000000000000000000000000d0fd000001000000000000\
    00000000000287007b7b00000000fd00000100000000000000000000000201010200000000d0";

/// From fe80::d0: who has fd00:1::2?
const NS_MULTICAST: &str = "\
    3333ff0000020200000000d086dd6000000000203afffe8000000000000000000000000000d0ff020000000000000000\
    0001ff00000287007a7800000000fd00000100000000000000000000000201010200000000d0";

/// Echo request with TOS 8 and DF, TTL 64.
const ECHO: &str = "\
    0200000000d002000000000c08004508002412344000400114380a0000020a0000640800666400050001616263646566\
    6768";

/// Its reply: TOS 8, DF clear, TTL 64.
const ECHO_REP: &str = "\
    02000000000c0200000000d008004508002412340000400154380a0000640a00000200006e6400050001616263646566\
    6768";

/// The same request with four bytes of IP options.
const ECHO_OPT: &str = "\
    0200000000d002000000000c08004608002812340000400151320a0000020a0000640101010108006664000500016162\
    636465666768";

/// Echo request of class 0x20, flow label 0x12345.
const ECHO6: &str = "\
    0200000000d002000000000c86dd6201234500103a40fd000001000000000000000000000002fd000001000000000000\
    0000000001008000f313000500016162636465666768";

/// Its reply: class 0x20, no flow label, hop limit 64.
const ECHO6_REP: &str = "\
    02000000000c0200000000d086dd6200000000103a40fd000001000000000000000000000100fd000001000000000000\
    0000000000028100f213000500016162636465666768";

/// The same request behind destination options.
const ECHO6_EXT: &str = "\
    0200000000d002000000000c86dd6200000000183c40fd000001000000000000000000000002fd000001000000000000\
    0000000001003a000104000000008000f313000500016162636465666768";

/// ACK, seq 5, ack 5, TOS 0x2a (ECN 2).
const ACK: &str = "\
    0200000000d002000000000c0800452a0028000740004006263a0a0000020a00006403ed005000000005000000055010\
    200077280000";

/// Its RST: seq 5, TOS 0x28, DF, window 0.
const ACK_RST: &str = "\
    02000000000c0200000000d008004528002800004000400626430a0000640a000002005003ed00000005000000005004\
    000097390000";

/// SYN, seq 1000, MSS option.
const SYN: &str = "\
    0200000000d002000000000c08004500002c00074000400626600a0000020a00006403ee0051000003e8000000006002\
    20005b9a0000020405b4";

/// Its RST, ACK: seq 0, ack 1001.
const SYN_RST: &str = "\
    02000000000c0200000000d0080045000028000040004006266b0a0000640a000002005103ee00000000000003e95014\
    000093430000";

/// FIN, PSH, seq 0xfffffffe, five bytes of data, no ACK.
const FINP: &str = "\
    0200000000d002000000000c08004500002d000700004006665f0a0000020a00006403ee0051fffffffe000000005009\
    2000ddcc00003132333435";

/// Its RST, ACK: ack 4, after the wrap.
const FINP_RST: &str = "\
    02000000000c0200000000d0080045000028000040004006266b0a0000640a000002005103ee00000000000000045014\
    000097280000";

/// ACK over IPv6 behind a VLAN tag.
const ACK6: &str = "\
    0200000000d002000000000c8100a06486dd6000000000140640fd000001000000000000000000000002fd0000010000\
    000000000000000001001f43005000000005000000055010200075320000";

/// Its RST behind the same tag.
const ACK6_RST: &str = "\
    02000000000c0200000000d08100a06486dd6000000000140640fd000001000000000000000000000100fd0000010000\
    0000000000000000000200501f4300000005000000005004000095430000";

/// Time exceeded about it behind the same tag.
const ACK6_EXC: &str = "\
    02000000000c0200000000d08100a06486dd6000000000443a40fd000001000000000000000000000100fd0000010000\
    0000000000000000000203009b41000000006000000000140640fd000001000000000000000000000002fd0000010000\
    000000000000000001001f43005000000005000000055010200075320000";

/// RST.
const RST: &str = "\
    0200000000d002000000000c08004500002800074000400626640a0000020a00006403ed005000000005000000055004\
    200077340000";

/// UDP with TOS 8.
const UDP: &str = "\
    0200000000d002000000000c08004508002000094000401126570a0000020a000064138b0036000cf8de70696e67";

/// Port unreachable about it: TOS 0xc8.
const UDP_UNR: &str = "\
    02000000000c0200000000d0080045c8003c000900004001658b0a0000640a0000020303118000000000450800200009\
    4000401126570a0000020a000064138b0036000cf8de70696e67";

/// UDP over IPv6.
const UDP6: &str = "\
    0200000000d002000000000c86dd62000000000c1140fd000001000000000000000000000002fd000001000000000000\
    000000000100138b0036000c123f70696e67";

/// Port unreachable about it.
const UDP6_UNR: &str = "\
    02000000000c0200000000d086dd60000000003c3a40fd000001000000000000000000000100fd000001000000000000\
    000000000002010490500000000062000000000c1140fd000001000000000000000000000002fd000001000000000000\
    000000000100138b0036000c123f70696e67";

/// SYN with TTL 1.
const TTL: &str = "\
    0200000000d002000000000c08004500002c000940000106655e0a0000020a00006403ef0050000003e8000000006002\
    20005b9a0000020405b4";

/// Time exceeded about it: TOS 0xc0.
const TTL_EXC: &str = "\
    02000000000c0200000000d0080045c0004800090000400165870a0000640a0000020b000984000000004500002c0009\
    40000106655e0a0000020a00006403ef0050000003e800000000600220005b9a0000020405b4";

/// SYN over IPv6 with hop limit 1.
const TTL6: &str = "\
    0200000000d002000000000c86dd6000000000180601fd000001000000000000000000000002fd000001000000000000\
    0000000001001f440050000003e8000000006002200059a50000020405b4";

/// Time exceeded about it.
const TTL6_EXC: &str = "\
    02000000000c0200000000d086dd6000000000483a40fd000001000000000000000000000100fd000001000000000000\
    00000000000203009b7c000000006000000000180601fd000001000000000000000000000002fd000001000000000000\
    0000000001001f440050000003e8000000006002200059a50000020405b4";

/// The headers of a TCP segment of 1490 bytes with DF.
const BIG_HEAD: &str = "\
    0200000000d002000000000c0800450005d2000940003f0621b80a0000020a0000640bb90050000003e9000000055010\
    20006e000000";

/// The headers of the error about it (MTU 1480), which is 576 bytes long.
const BIG_ERR_HEAD: &str = "\
    02000000000c0200000000d0080045c00240000900004001638f0a0000640a00000203046393000005c8";

/// The headers of a TCP segment of 1510 bytes over IPv6.
const BIG6_HEAD: &str = "\
    0200000000d002000000000c86dd6000000005be063ffd000001000000000000000000000002fd000001000000000000\
    0000000001000bb90050000003e9000000055010200087600000";

/// The headers of the error about it (MTU 1400), which is 1280 bytes long.
const BIG6_ERR_HEAD: &str = "\
    02000000000c0200000000d086dd6000000004d83a40fd000001000000000000000000000100fd000001000000000000\
    000000000002020066d800000578";

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digit).collect()
}

type Make = fn(&mut Buffer, &Layout, [u8; 6]) -> Replied;

/// The answer as a virtual address's.
fn refused(frame: &mut Buffer, layout: &Layout, mac: [u8; 6]) -> Replied {
    port_unreachable(frame, layout, Speaker::virtual_address(mac))
}

/// The answer as a virtual address's.
fn expired(frame: &mut Buffer, layout: &Layout, mac: [u8; 6]) -> Replied {
    time_exceeded(frame, layout, Speaker::virtual_address(mac))
}

/// What becomes of a frame, with the layout that the parser finds in it.
fn made(
    make: impl Fn(&mut Buffer, &Layout, [u8; 6]) -> Replied,
    frame: &[u8],
) -> Result<(Answer, Vec<u8>), DropReason> {
    let mut pool = Pool::new(
        "a test",
        PoolOptions {
            buffers: 1,
            room: crate::limits::FRAME_ROOM,
            memory: Options { pages: PageChoice::Ordinary, ..Options::default() },
        },
    )
    .expect("memory");
    let mut buffer = pool.alloc().expect("a buffer");
    assert!(buffer.copy_from(frame));
    let layout = parse::frame(frame, DIRECTOR, &mut parse::Keys::default())?;
    let answer = make(&mut buffer, &layout, DIRECTOR)?;
    Ok((answer, buffer.data().to_vec()))
}

#[test]
fn each_answer_is_that_of_the_reference() {
    let cases: [(Make, &str, Answer, &str); 16] = [
        (arp_reply, ARP_REQ, Answer::Arp, ARP_REP),
        (neighbor_advertisement, NS, Answer::NeighborAdvertisement, NA),
        // To all nodes, not solicited: what an announcement is.
        (neighbor_advertisement, DAD, Answer::NeighborAdvertisement, UNA),
        (echo, ECHO, Answer::EchoReply, ECHO_REP),
        (echo, ECHO_OPT, Answer::EchoReply, ECHO_REP),
        (echo, ECHO6, Answer::EchoReply, ECHO6_REP),
        (echo, ECHO6_EXT, Answer::EchoReply, ECHO6_REP),
        (tcp_reset, ACK, Answer::TcpReset, ACK_RST),
        (tcp_reset, SYN, Answer::TcpReset, SYN_RST),
        (tcp_reset, FINP, Answer::TcpReset, FINP_RST),
        (tcp_reset, ACK6, Answer::TcpReset, ACK6_RST),
        (refused, UDP, Answer::PortUnreachable, UDP_UNR),
        (refused, UDP6, Answer::PortUnreachable, UDP6_UNR),
        (expired, TTL, Answer::TimeExceeded, TTL_EXC),
        (expired, TTL6, Answer::TimeExceeded, TTL6_EXC),
        (expired, ACK6, Answer::TimeExceeded, ACK6_EXC),
    ];
    for (number, (make, frame, answer, expected)) in cases.into_iter().enumerate() {
        let expected = Ok((answer, bytes(expected)));
        assert_eq!(made(make, &bytes(frame)), expected, "case {number}");
        // Ethernet pads short frames; the padding is no part of the packet.
        let padded = [&bytes(frame)[..], &[0xee; 20]].concat();
        assert_eq!(made(make, &padded), expected, "case {number}, padded");
    }
}

#[test]
fn large_packets_are_quoted_up_to_576_and_1280_bytes() {
    let pattern: Vec<u8> = (0..1450u32).map(|i| (1 + 7 * i) as u8).collect();
    let packet = [&bytes(BIG_HEAD)[..], &pattern].concat();
    let (answer, error) =
        made(|b, l, m| packet_too_big(b, l, Speaker::virtual_address(m), 1480), &packet).expect("an answer");
    assert_eq!((answer, error.len()), (Answer::PacketTooBig, 14 + 576));
    assert_eq!((&error[..42], &error[42..]), (&bytes(BIG_ERR_HEAD)[..], &packet[14..14 + 548]));
    assert_eq!((slow(&error[14..34]), slow(&error[34..])), (0xffff, 0xffff));

    let packet = [&bytes(BIG6_HEAD)[..], &pattern].concat();
    let (answer, error) =
        made(|b, l, m| packet_too_big(b, l, Speaker::virtual_address(m), 1400), &packet).expect("an answer");
    assert_eq!((answer, error.len()), (Answer::PacketTooBig, 14 + 1280));
    assert_eq!((&error[..62], &error[62..]), (&bytes(BIG6_ERR_HEAD)[..], &packet[14..14 + 1232]));
}

#[test]
fn announcements_and_questions_are_those_of_the_reference() {
    let (vip, vip6) = (Ipv4Addr::new(10, 0, 0, 100), "fd00:1::100".parse().expect("literal"));
    assert_eq!(gratuitous_arp(DIRECTOR, vip)[..], bytes(GARP));
    assert_eq!(unsolicited_na(DIRECTOR, vip6)[..], bytes(UNA));
    let (own, client6) = ("fe80::d0".parse().expect("literal"), "fd00:1::2".parse().expect("literal"));
    assert_eq!(neighbor_solicitation(DIRECTOR, own, client6, None)[..], bytes(NS_MULTICAST));
    assert_eq!(neighbor_solicitation(DIRECTOR, own, client6, Some(CLIENT))[..], bytes(NS_UNICAST));
    assert_eq!(arp_request(CLIENT, Ipv4Addr::new(10, 0, 0, 2), vip, None)[..], bytes(ARP_REQ));
    let unicast = arp_request(CLIENT, Ipv4Addr::new(10, 0, 0, 2), vip, Some(DIRECTOR));
    assert_eq!((&unicast[..6], &unicast[6..]), (&DIRECTOR[..], &bytes(ARP_REQ)[6..]));
}

/// `frame` with byte `at` changed, and the IPv4 header's checksum corrected.
fn with(frame: &str, at: usize, value: u8) -> Vec<u8> {
    let mut frame = bytes(frame);
    frame[at] = value;
    if frame[12..14] == [8, 0] {
        frame[24..26].fill(0);
        let sum = !slow(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

#[test]
fn damaged_segments_echoes_and_solicitations_are_not_answered() {
    let cases: [(Make, &str); 6] = [
        (tcp_reset, SYN),
        (tcp_reset, ACK6),
        (echo, ECHO),
        (echo, ECHO6),
        (neighbor_advertisement, NS),
        (neighbor_advertisement, DAD),
    ];
    for (make, frame) in cases {
        let mut frame = bytes(frame);
        *frame.last_mut().expect("bytes") ^= 1;
        assert_eq!(made(make, &frame), Err(DropReason::TransportHeader));
    }
}

#[test]
fn a_reset_is_not_answered_with_a_reset() {
    assert_eq!(made(tcp_reset, &bytes(RST)), Err(DropReason::ResetUnmatched));
}

#[test]
fn addresses_that_no_station_has_are_not_answered() {
    // The first byte of the IPv4 source; the last one makes it the destination.
    for first in [224, 127, 0] {
        assert_eq!(made(refused, &with(UDP, 26, first)), Err(DropReason::SourceInvalid));
    }
    assert_eq!(made(refused, &with(UDP, 29, 100)), Err(DropReason::SourceInvalid));
    assert_eq!(made(refused, &with(UDP6, 22, 0xff)), Err(DropReason::SourceInvalid));
    assert_eq!(made(refused, &with(UDP, 30, 224)), Err(DropReason::NotAnswerable));
    assert_eq!(made(refused, &with(UDP6, 38, 0xff)), Err(DropReason::NotAnswerable));
    // A multicast source MAC address, and our own.
    assert_eq!(made(refused, &with(UDP, 6, 3)), Err(DropReason::SourceInvalid));
    assert_eq!(made(refused, &with(UDP, 11, 0xd0)), Err(DropReason::LoopDetected));
    // Sent to all stations of the link.
    let mut to_all = bytes(UDP);
    to_all[..6].fill(0xff);
    assert_eq!(made(refused, &to_all), Err(DropReason::NotAnswerable));
    // An ARP request in which the asker has the address itself.
    let claim = made(arp_reply, &with(ARP_REQ, 31, 100));
    assert_eq!(claim, Err(DropReason::SourceInvalid));
}

#[test]
fn no_error_answers_an_error_or_a_later_fragment() {
    let mut error = bytes(TTL_EXC);
    error[..12].copy_from_slice(&[DIRECTOR, CLIENT].concat());
    assert_eq!(made(expired, &error), Err(DropReason::NotAnswerable));
    let mut error = bytes(TTL6_EXC);
    error[..12].copy_from_slice(&[DIRECTOR, CLIENT].concat());
    assert_eq!(made(expired, &error), Err(DropReason::NotAnswerable));
    // Offset 8 in the fragment word.
    assert_eq!(made(expired, &with(UDP, 21, 1)), Err(DropReason::FragmentUnmatched));
}

#[test]
fn a_layout_that_does_not_fit_its_frame_makes_no_answer() {
    let makes: [Make; 6] = [arp_reply, neighbor_advertisement, echo, tcp_reset, refused, expired];
    for make in makes {
        for (l3, l4, end) in [(14, 34, 2000), (60, 34, 40), (14, 10, 30), (14, 40, 34), (14, 14, 14)] {
            for v6 in [false, true] {
                let layout = Layout { l3, l4, end, v6, ..Layout::default() };
                assert!(made(|b, _, mac| make(b, &layout, mac), &bytes(UDP)).is_err());
            }
        }
    }
}
