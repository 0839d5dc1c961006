import Crypto
import Foundation
import NIOCore

/// One SMTP session (RFC 5321) of the sink.
final class SinkSession: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  private let sink: SendSink
  private let pipelines: Bool
  private var number = 0
  private var connection = SocketPair(client: 0, server: 0)
  private var buffer = ByteBuffer()
  private var isInBody = false
  /// Octets of the buffer that hold no end of a message.
  private var scanned = 0
  /// The message under way: the number in its recipient's name, and its announced size.
  private var message = 0
  private var size = 0
  private var isHeld = false

  init(sink: SendSink, pipelines: Bool) {
    self.sink = sink
    self.pipelines = pipelines
  }

  func channelActive(context: ChannelHandlerContext) {
    sink.noticeLeavers()
    connection = SocketPair(client: context.remoteAddress?.port ?? 0, server: context.localAddress?.port ?? 0)
    number = sink.census.accepted(identity: nil, connection: connection)
    sink.began(number, context.channel)
    send("220 sink.test\r\n", context)
  }

  func channelInactive(context: ChannelHandlerContext) {
    sink.census.closed(number)
    sink.ended(number)
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = unwrapInboundIn(data)
    buffer.writeBuffer(&bytes)
    goOn(context)
  }

  private func goOn(_ context: ChannelHandlerContext) {
    while !isHeld {
      if isInBody {
        guard readBody(context) else { return }
      } else {
        guard let line = nextLine() else { return }
        answer(line, context)
      }
    }
  }

  private func nextLine() -> String? {
    guard let end = buffer.readableBytesView.firstIndex(of: UInt8(ascii: "\n")) else { return nil }
    let line = buffer.readString(length: end - buffer.readerIndex) ?? ""
    buffer.moveReaderIndex(forwardBy: 1)
    return line.hasSuffix("\r") ? String(line.dropLast()) : line
  }

  /// Stops the session for ever when it is trapped here.
  private func isStopped(at phase: SinkPhase) -> Bool {
    isHeld = sink.isTrapped(phase, connection, size: size)
    return isHeld
  }

  private func answer(_ line: String, _ context: ChannelHandlerContext) {
    let verb = line.prefix { $0 != " " }.uppercased()
    sink.census.did(number, verb)
    switch verb {
    case "EHLO":
      if isStopped(at: .hello) { return }
      send("250-sink.test\r\n250-SIZE 100000000\r\n\(pipelines ? "250-PIPELINING\r\n" : "")250 AUTH PLAIN\r\n", context)
    case "AUTH":
      let parts = (Data(base64Encoded: String(line.split(separator: " ").last ?? "")) ?? Data())
        .split(separator: 0, omittingEmptySubsequences: false)
      if parts.count == 3 { sink.census.identified(number, as: .mailbox(String(decoding: parts[1], as: UTF8.self))) }
      if isStopped(at: .login) { return }
      send("235 2.7.0 in\r\n", context)
    case "MAIL":
      size = line.split(separator: "SIZE=").last.flatMap { Int($0.prefix { $0.isNumber }) } ?? 0
      if isStopped(at: .mail) { return }
      send("250 2.1.0 ok\r\n", context)
    case "RCPT":
      // RCPT TO:<r17@sink.test>
      message = Int(line.drop { $0 != "<" }.dropFirst(2).prefix { $0.isNumber }) ?? 0
      note(.recipient) { $0.octets = 0 }
      if isStopped(at: .recipient) { return }
      send("250 2.1.5 ok\r\n", context)
    case "DATA":
      note(.data)
      if isStopped(at: .data) { return }
      note(.goAhead)
      (isInBody, scanned) = (true, 0)
      send("354 go ahead\r\n", context)
    case "RSET": send("250 2.0.0 ok\r\n", context)
    case "QUIT":
      if isStopped(at: .quit) { return }
      // Over before its client hears of it.
      sink.census.closed(number)
      send("221 2.0.0 bye\r\n", context)
      context.close(promise: nil)
      isHeld = true
    default: send("500 5.5.2 what?\r\n", context)
    }
  }

  private func note(_ phase: SinkPhase, _ change: (inout SunkMessage) -> Void = { _ in }) {
    sink.note(message) {
      $0.phase = phase
      change(&$0)
    }
  }

  /// Returns whether the message has ended.
  private func readBody(_ context: ChannelHandlerContext) -> Bool {
    guard buffer.readableBytes > 0 else { return false }
    note(.body) { $0.octets = buffer.readableBytes }
    if isStopped(at: .body) { return false }
    guard let length = endOfBody() else { return false }
    isInBody = false
    let octets = Self.unstuffed(buffer.readBytes(length: length) ?? [])
    buffer.discardReadBytes()
    note(.whole) { seen in
      seen.accepted += 1
      seen.octets = octets.count
      seen.hash = SHA256.hash(data: octets).map { String(format: "%02x", $0) }.joined()
      seen.messageID = Self.messageID(octets)
    }
    if isStopped(at: .whole) { return true }
    isHeld = true
    context.eventLoop.assumeIsolated().scheduleTask(in: sink.pause()) {
      guard context.channel.isActive else { return }
      self.note(.answered)
      self.send("250 2.0.0 taken\r\n", context)
      self.isHeld = false
      self.goOn(context)
    }
    return true
  }

  private static let end = Data("\r\n.\r\n".utf8)

  /// How many octets reach up to and including the lone dot; what was looked at is not looked at again. Foundation looks,
  /// as a loop of an unoptimized build would hold up every session.
  private func endOfBody() -> Int? {
    let view = buffer.readableBytesView
    if view.starts(with: Self.end.dropFirst(2)) { return 3 }
    let from = max(0, scanned - Self.end.count)
    guard let found = Data(view.dropFirst(from)).range(of: Self.end) else {
      scanned = view.count
      return nil
    }
    return from + found.upperBound
  }

  /// The message without its lone dot and without stuffed dots (RFC 5321 section 4.5.2). The large ones have none.
  private static func unstuffed(_ octets: [UInt8]) -> [UInt8] {
    if octets.count > SendSink.largeOctets { return Array(octets.dropLast(3)) }
    var out: [UInt8] = []
    out.reserveCapacity(octets.count)
    var atLineStart = true
    for octet in octets.dropLast(3) {
      if !(atLineStart && octet == UInt8(ascii: ".")) { out.append(octet) }
      atLineStart = octet == UInt8(ascii: "\n")
    }
    return out
  }

  private static func messageID(_ octets: [UInt8]) -> String {
    let header = String(decoding: octets.prefix(1_024), as: UTF8.self)
    return header.range(of: "Message-ID: <").map { String(header[$0.upperBound...].prefix { $0 != ">" }) } ?? ""
  }

  private func send(_ text: String, _ context: ChannelHandlerContext) {
    context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: text)), promise: nil)
  }
}
