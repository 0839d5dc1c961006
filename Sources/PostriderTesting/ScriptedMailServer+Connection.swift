import NIOCore
import NIOSSL

/// Plays one script on one connection.
final class ScriptHandler: ChannelDuplexHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  private let record: ScriptedMailServer.Record
  private var number = 0
  private var steps: ArraySlice<ScriptedMailServer.Step> = []
  private var buffer = ByteBuffer()
  private var isBusy = false
  private var isReading = true
  private var isInMessage = false
  /// Octets that come before the next line, and the answer to them.
  private var awaited: (octets: Int, answer: String)?
  /// Octets of the buffer that hold no end of a message.
  private var scanned = 0

  init(record: ScriptedMailServer.Record) { self.record = record }

  func channelActive(context: ChannelHandlerContext) {
    let (number, script) = record.open()
    self.number = number
    steps = script[...]
    run(context)
  }

  func channelInactive(context: ChannelHandlerContext) {
    record.closed(number)
    steps = []
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = unwrapInboundIn(data)
    buffer.writeBuffer(&bytes)
    run(context)
  }

  func read(context: ChannelHandlerContext) { if isReading { context.read() } }

  func channelWritabilityChanged(context: ChannelHandlerContext) { run(context) }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    // A client that refuses the certificate, or leaves mid-flood, is what many scripts are for.
    context.close(promise: nil)
  }

  private func run(_ context: ChannelHandlerContext) {
    while !isBusy, let step = steps.first {
      guard play(step, context) else { return }
      steps = steps.dropFirst()
    }
    // Behind the script's end, what comes is only recorded.
    if steps.isEmpty { while let line = nextLine() { record.line(number, line) } }
  }

  /// Plays a step; returns whether it is over.
  private func play(_ step: ScriptedMailServer.Step, _ context: ChannelHandlerContext) -> Bool {
    switch step {
    case .send(let text): send(text, context)
    case .sendBytes(let octets): context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: octets)), promise: nil)
    case .expect(let prefix):
      guard let line = nextLine() else { return false }
      record.line(number, line)
      if !line.lowercased().hasPrefix(prefix.lowercased()) {
        record.mismatch("expected `\(prefix)`, got `\(line)`")
        context.close(promise: nil)
      }
    case .readMessage:
      guard let message = nextMessage() else { return false }
      record.line(number, message)
    case .serve(let answer): return serve(answer, context)
    case .signal(let signal): signal.fire()
    case .wait(let signal):
      hold(context) { resume in signal.whenFired(resume) }
      return true
    case .drip(let text, let pause):
      drip(Array(text.utf8)[...], TimeAmount(pause), context)
      return true
    case .flood(let text):
      flood(text, context)
      return true
    case .stream(let piece):
      stream(piece, 0, isFirst: true, context)
      return true
    case .startTLS(let identity):
      do {
        try context.pipeline.syncOperations.addHandler(identity.makeHandler(), position: .first)
      } catch {
        record.mismatch("TLS: \(error)")
        context.close(promise: nil)
      }
    case .stopReading: isReading = false
    case .close: context.close(promise: nil)
    }
    return true
  }

  private func serve(
    _ answer: @Sendable (String) -> ScriptedMailServer.Reply, _ context: ChannelHandlerContext
  ) -> Bool {
    while true {
      if let awaited {
        guard let text = buffer.readString(length: awaited.octets) else { return false }
        record.line(number, text)
        send(awaited.answer, context)
        self.awaited = nil
      }
      guard let line = isInMessage ? nextMessage() : nextLine() else { return false }
      isInMessage = false
      record.line(number, line)
      switch answer(line) {
      case .text(let text): send(text, context)
      case .readMessage(let text):
        send(text, context)
        isInMessage = true
      case .readOctets(let octets, let text): awaited = (octets, text)
      case .close(let text):
        send(text, context)
        context.close(promise: nil)
        return true
      case .next: return true
      }
    }
  }

  private func send(_ text: String, _ context: ChannelHandlerContext) {
    if !text.isEmpty { context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: text)), promise: nil) }
  }

  /// Stops the script until the resumption is called, from any thread.
  private func hold(_ context: ChannelHandlerContext, _ body: (@escaping @Sendable () -> Void) -> Void) {
    isBusy = true
    let eventLoop = context.eventLoop
    let bound = NIOLoopBound((self, context), eventLoop: eventLoop)
    body {
      eventLoop.execute {
        let (handler, context) = bound.value
        handler.isBusy = false
        handler.run(context)
      }
    }
  }

  /// Sends as long as the client takes it, one piece per turn of the event loop, which others share.
  private func flood(_ text: String, _ context: ChannelHandlerContext) {
    isBusy = true
    guard context.channel.isActive else { return }
    if context.channel.isWritable {
      let times = max(1, 32_768 / max(1, text.utf8.count))
      send(String(repeating: text, count: times), context)
    }
    // Not at once: a task that schedules itself without delay keeps the loop from ever looking at its sockets.
    context.eventLoop.assumeIsolated().scheduleTask(in: .microseconds(500)) { self.flood(text, context) }
  }

  /// Sends pieces while the client takes them, some per turn of the event loop.
  private func stream(
    _ piece: @escaping @Sendable (Int) -> String?, _ first: Int, isFirst: Bool, _ context: ChannelHandlerContext
  ) {
    isBusy = true
    guard context.channel.isActive else { return }
    var number = first
    while context.channel.isWritable, number < first + 16 {
      guard let text = piece(number) else {
        isBusy = false
        // The first call comes from the loop over the steps, which goes on by itself.
        if !isFirst { run(context) }
        return
      }
      send(text, context)
      number += 1
    }
    context.eventLoop.assumeIsolated().scheduleTask(in: .microseconds(200)) { [number] in
      self.stream(piece, number, isFirst: false, context)
    }
  }

  private func drip(_ octets: ArraySlice<UInt8>, _ pause: TimeAmount, _ context: ChannelHandlerContext) {
    guard let first = octets.first, context.channel.isActive else {
      isBusy = false
      return
    }
    isBusy = true
    context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: [first])), promise: nil)
    context.eventLoop.assumeIsolated().scheduleTask(in: pause) {
      self.drip(octets.dropFirst(), pause, context)
      if !self.isBusy { self.run(context) }
    }
  }

  private func nextLine() -> String? {
    guard let end = buffer.readableBytesView.firstIndex(of: UInt8(ascii: "\n")) else { return nil }
    let length = end - buffer.readerIndex
    var line = buffer.readString(length: length) ?? ""
    buffer.moveReaderIndex(forwardBy: 1)
    if line.utf8.last == UInt8(ascii: "\r") { line = String(Substring(line.utf8.dropLast())) }
    return line
  }

  private func nextMessage() -> String? {
    let length: Int
    if buffer.readableBytesView.starts(with: ".\r\n".utf8) {
      length = 3
    } else if let end = endOfMessage() {
      length = end
    } else {
      return nil
    }
    scanned = 0
    return buffer.readString(length: length)
  }

  /// How many octets reach up to and including the first lone dot. Octets that were looked at are not looked at again:
  /// large messages come in many pieces.
  private func endOfMessage() -> Int? {
    let mark = Array("\r\n.\r\n".utf8)
    return buffer.withUnsafeReadableBytes { bytes in
      var index = max(scanned, mark.count - 1)
      while index < bytes.count {
        if bytes[index] == UInt8(ascii: "\n"), bytes[(index - mark.count + 1)...index].elementsEqual(mark) {
          return index + 1
        }
        index += 1
      }
      scanned = index
      return nil
    }
  }
}
