import ArgumentParser
import Foundation
import NIOCore
import NIOPosix
import NIOSSL

/// What the server of `bench poll` and `bench fetch` is like.
struct CheapServerOptions: ParsableArguments, Sendable {
  @Option(help: "Where the port is written once it listens.")
  var portFile: String

  @Option(help: "Messages in every mailbox.")
  var messages = 0

  @Option(help: "Octets of each message.")
  var octets = 10_000

  @Option(help: "Milliseconds from a command to its answer.")
  var delay = 0

  @Flag(help: "Announce PIPELINING.")
  var pipelining = false

  @Option(help: "Certificate (PEM) for TLS from the first byte.")
  var certificate: String?

  @Option(help: "Its key (PEM).")
  var key: String?
}

/// `postrider bench pop3-server`: a POP3 server that costs next to nothing, in a process of its own so that its CPU does
/// not count as the client's.
struct CheapPOP3Server: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pop3-server", abstract: "The server that bench poll and bench fetch measure against.",
    shouldDisplay: false)

  @OptionGroup var options: CheapServerOptions

  func run() async throws {
    Machine.raiseFileLimit()
    let answers = CheapAnswers(options)
    let tls = try tlsContext()
    let delay = TimeAmount.milliseconds(Int64(options.delay))
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let channel = try await ServerBootstrap(group: group)
      .serverChannelOption(.backlog, value: 4_096)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelOption(.maxMessagesPerRead, value: 1)
      .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          if let tls { try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: tls)) }
          try channel.pipeline.syncOperations.addHandler(CheapPOP3Handler(answers, delay))
        }
      }
      .bind(host: "127.0.0.1", port: 0).get()
    // The name appears last, so that whoever waits for it reads all of it.
    let temporary = options.portFile + ".new"
    try Data("\(channel.localAddress?.port ?? 0)".utf8).write(to: URL(fileURLWithPath: temporary))
    try FileManager.default.moveItem(atPath: temporary, toPath: options.portFile)
    try await channel.closeFuture.get()
  }

  private func tlsContext() throws -> NIOSSLContext? {
    guard let certificate = options.certificate, let key = options.key else { return nil }
    let chain = try NIOSSLCertificate.fromPEMFile(certificate).map { NIOSSLCertificateSource.certificate($0) }
    return try NIOSSLContext(
      configuration: .makeServerConfiguration(
        certificateChain: chain, privateKey: .privateKey(try NIOSSLPrivateKey(file: key, format: .pem))))
  }
}

/// Every answer, made once.
struct CheapAnswers: Sendable {
  let ok = ByteBuffer(string: "+OK\r\n")
  let greeting = ByteBuffer(string: "+OK bench\r\n")
  let capabilities: ByteBuffer
  let listing: ByteBuffer
  let message: ByteBuffer
  let header: ByteBuffer
  /// Other clients ask how much there is.
  let status: ByteBuffer

  init(_ options: CheapServerOptions) {
    capabilities = ByteBuffer(
      string: "+OK\r\nTOP\r\nUIDL\r\nUSER\r\nSASL PLAIN\r\n\(options.pipelining ? "PIPELINING\r\n" : "").\r\n")
    let lines = options.messages == 0 ? "" : (1...options.messages).map { "\($0) bench-message-\($0)\r\n" }.joined()
    listing = ByteBuffer(string: "+OK\r\n" + lines + ".\r\n")
    message = ByteBuffer(string: "+OK\r\n" + BenchMail.message(octets: options.octets) + ".\r\n")
    status = ByteBuffer(string: "+OK \(options.messages) \(options.messages * options.octets)\r\n")
    header = ByteBuffer(string: "+OK\r\nSubject: bench\r\n\r\n.\r\n")
  }

  /// The answer to a command, by its first two letters.
  func answer(to command: ByteBufferView) -> ByteBuffer {
    guard command.count >= 2 else { return ok }
    let second = command[command.startIndex + 1]
    switch command[command.startIndex] {
    case UInt8(ascii: "C"): return capabilities
    case UInt8(ascii: "U") where second == UInt8(ascii: "I"): return listing
    case UInt8(ascii: "R") where second == UInt8(ascii: "E"): return message
    case UInt8(ascii: "T"): return header
    case UInt8(ascii: "L"): return listing
    case UInt8(ascii: "S"): return status
    default: return ok
    }
  }
}

/// One connection.
private final class CheapPOP3Handler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  private let answers: CheapAnswers
  private let delay: TimeAmount
  private var input = ByteBuffer()

  init(_ answers: CheapAnswers, _ delay: TimeAmount) {
    self.answers = answers
    self.delay = delay
  }

  func channelActive(context: ChannelHandlerContext) {
    context.writeAndFlush(wrapOutboundOut(answers.greeting), promise: nil)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = unwrapInboundIn(data)
    if input.readableBytes == 0 { input = bytes } else { input.writeBuffer(&bytes) }
    var output: [ByteBuffer] = []
    var quits = false
    while let end = input.readableBytesView.firstIndex(of: UInt8(ascii: "\n")) {
      let line = input.readableBytesView[..<end]
      quits = line.first == UInt8(ascii: "Q")
      output.append(answers.answer(to: line))
      input.moveReaderIndex(to: end + 1)
    }
    if delay == .zero { return write(output, quits, context) }
    context.eventLoop.assumeIsolated().scheduleTask(in: delay) { self.write(output, quits, context) }
  }

  private func write(_ output: [ByteBuffer], _ quits: Bool, _ context: ChannelHandlerContext) {
    for buffer in output { context.write(wrapOutboundOut(buffer), promise: nil) }
    context.flush()
    if quits { context.close(promise: nil) }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

/// What the benchmarks' messages are like.
enum BenchMail {
  /// A message of about so many octets: a text, and above 100,000 octets the rest as a base64 attachment.
  static func message(octets: Int, number: Int = 1) -> String {
    let isBig = octets > 100_000
    var text = """
      Received: from relay.example.org by mail.example.org; Mon, 2 Mar 2026 09:00:00 +0000\r
      From: "Ada Lovelace" <ada@example.org>\r
      To: bench@bench.test\r
      Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= number \(number)\r
      Date: Mon, 2 Mar 2026 09:00:00 +0000\r
      Message-ID: <bench.\(number)@example.org>\r
      MIME-Version: 1.0\r
      Content-Type: \(isBig ? "multipart/mixed; boundary=bench" : "text/plain; charset=utf-8")\r
      \r

      """
    if isBig { text += "--bench\r\nContent-Type: text/plain\r\n\r\nSee the attachment.\r\n--bench\r\n" }
    if isBig {
      text += "Content-Type: application/octet-stream; name=big.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    }
    let line =
      isBig ? String(repeating: "QUJD", count: 19) + "\r\n" : String(repeating: "0123456789 ", count: 7) + "\r\n"
    let count = max(0, octets - text.utf8.count - (isBig ? 11 : 0)) / line.utf8.count
    return text + String(repeating: line, count: count) + (isBig ? "--bench--\r\n" : "")
  }
}
