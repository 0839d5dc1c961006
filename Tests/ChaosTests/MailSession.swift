import Foundation
import NIOCore

/// One POP3 session (RFC 1939) of the fault suite's server.
final class MailSession: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  private let server: MailServer
  private let port: MailServer.Port
  private var number = 0
  private var connection = SocketPair(client: 0, server: 0)
  private var buffer = ByteBuffer()
  private var user = ""
  private var drop: Maildrop?
  private var messages: [OfferedMessage] = []
  private var deleted: Set<Int> = []
  private var expectsResponse = false
  /// The session waits, as told, before its next answer.
  private var isHeld = false
  private var isOver = false
  private var seconds = 0.0

  init(server: MailServer, port: MailServer.Port) {
    self.server = server
    self.port = port
  }

  func channelActive(context: ChannelHandlerContext) {
    server.noticeLeavers()
    connection = SocketPair(client: context.remoteAddress?.port ?? 0, server: context.localAddress?.port ?? 0)
    number = server.census.accepted(
      identity: port.account == nil ? nil : .profile(port.profile), connection: connection)
    server.began(number, context.channel)
    seconds = server.sessionSeconds()
    send("+OK ready\r\n", context)
  }

  func channelInactive(context: ChannelHandlerContext) { end() }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  private func end() {
    isOver = true
    server.census.closed(number)
    server.ended(number)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = unwrapInboundIn(data)
    buffer.writeBuffer(&bytes)
    answer(context)
  }

  private func answer(_ context: ChannelHandlerContext) {
    while !isHeld, !isOver, let line = nextLine() { answer(line, context) }
  }

  private func nextLine() -> String? {
    guard let end = buffer.readableBytesView.firstIndex(of: UInt8(ascii: "\n")) else { return nil }
    let line = buffer.readString(length: end - buffer.readerIndex) ?? ""
    buffer.moveReaderIndex(forwardBy: 1)
    return line.hasSuffix("\r") ? String(line.dropLast()) : line
  }

  private func answer(_ line: String, _ context: ChannelHandlerContext) {
    if expectsResponse {
      expectsResponse = false
      return login(plain: line, context)
    }
    let words = line.split(separator: " ").map(String.init)
    let argument = words.dropFirst().first ?? ""
    server.census.did(number, words.first ?? "")
    switch words.first?.uppercased() {
    case "CAPA":
      send("+OK\r\nUSER\r\nSASL PLAIN\r\nUIDL\r\nTOP\r\n\(port.pipelines ? "PIPELINING\r\n" : "").\r\n", context)
    case "AUTH":
      if words.count == 3 { return login(plain: words[2], context) }
      expectsResponse = true
      send("+ \r\n", context)
    case "USER":
      user = argument
      send("+OK\r\n", context)
    case "PASS": login(user, context)
    case "STAT":
      // Most of a session's time passes here, some of it at its end.
      hold(seconds * 0.7, context) { "+OK \($0.messages.count) \($0.messages.reduce(0) { $0 + $1.octets.count })\r\n" }
    case "UIDL":
      let wait = port.pipelines ? seconds * 0.7 : 0
      hold(wait, context) { session in
        "+OK\r\n" + session.messages.enumerated().map { "\($0 + 1) \($1.uidl)\r\n" }.joined() + ".\r\n"
      }
    case "LIST":
      send(
        "+OK\r\n" + messages.enumerated().map { "\($0 + 1) \($1.octets.count)\r\n" }.joined() + ".\r\n", context)
    case "RETR": retrieve(argument, context)
    case "DELE":
      if let number = Int(argument), messages.indices.contains(number - 1) { deleted.insert(number - 1) }
      send("+OK\r\n", context)
    case "QUIT": hold(seconds * 0.3, context) { $0.quit() }
    case "NOOP", "RSET": send("+OK\r\n", context)
    default: send("-ERR unknown command\r\n", context)
    }
  }

  private func login(plain response: String, _ context: ChannelHandlerContext) {
    let parts = (Data(base64Encoded: response) ?? Data()).split(separator: 0, omittingEmptySubsequences: false)
    login(parts.count == 3 ? String(decoding: parts[1], as: UTF8.self) : "", context)
  }

  private func login(_ name: String, _ context: ChannelHandlerContext) {
    guard let drop = server.drop(name), port.account == nil || port.account == name else {
      server.refuse()
      return send("-ERR [AUTH] no such account\r\n", context)
    }
    if port.account == nil { server.census.identified(number, as: .mailbox(name)) }
    self.drop = drop
    messages = drop.present
    send("+OK\r\n", context)
  }

  private func retrieve(_ argument: String, _ context: ChannelHandlerContext) {
    guard let number = Int(argument), messages.indices.contains(number - 1) else {
      return send("-ERR no such message\r\n", context)
    }
    var out = ByteBuffer(string: "+OK\r\n")
    let stuffed = messages[number - 1].stuffed
    out.writeBytes(stuffed.prefix(stuffed.count / 2))
    context.writeAndFlush(wrapOutboundOut(out), promise: nil)
    if server.isTrapped(connection) {
      isHeld = true
      return
    }
    var rest = ByteBuffer(bytes: stuffed.suffix(stuffed.count - stuffed.count / 2))
    rest.writeString(".\r\n")
    context.writeAndFlush(wrapOutboundOut(rest), promise: nil)
  }

  /// The update state: what was marked is removed, and the session is over before its client hears of it.
  private func quit() -> String {
    drop?.remove(Set(deleted.map { messages[$0].uidl }))
    end()
    return "+OK\r\n"
  }

  /// Answers after a while; what the client sends meanwhile waits.
  private func hold(_ seconds: Double, _ context: ChannelHandlerContext, _ reply: @escaping (MailSession) -> String) {
    isHeld = true
    context.eventLoop.assumeIsolated().scheduleTask(in: .milliseconds(Int64(seconds * 1_000))) {
      guard self.isHeld, !self.isOver, context.channel.isActive else { return }
      self.isHeld = false
      self.send(reply(self), context)
      if self.isOver { context.close(promise: nil) } else { self.answer(context) }
    }
  }

  private func send(_ text: String, _ context: ChannelHandlerContext) {
    context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: text)), promise: nil)
  }
}
