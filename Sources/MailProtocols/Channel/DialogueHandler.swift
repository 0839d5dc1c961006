import NIOCore
import PostriderCore

/// The deadlines of one session.
struct SessionDeadlines: Hashable, Sendable {
  /// For each answer, and the window in which the minimum rate has to be reached.
  var answer: TimeAmount
  /// For the answer to a message's final dot.
  var finalAnswer: TimeAmount
  /// For a TLS handshake.
  var handshake: TimeAmount
  /// Of bodies in either direction.
  var minimumOctetsPerSecond: Int
}

/// Why a session ends from our side.
enum Interruption: Error, Hashable, Sendable {
  /// The task that waits was cancelled.
  case cancelled
  /// ``POP3Session/abort()`` or ``SMTPSession/abort()``.
  case aborted
  /// The session ended normally.
  case finished
}

/// Carries a dialogue's actions out: writes, reads with back-pressure, deadlines, TLS. Decides nothing about the protocol.
///
/// Everything runs on the channel's event loop.
final class DialogueHandler<Machine: Dialogue>: ChannelDuplexHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  /// Octets without an operation that would take them; more means that the server floods.
  private static var maximumIdleOctets: Int { 65_536 }
  /// Octets waiting for the consumer at which reading stops, and goes on again.
  private static var highWaterMark: Int { 262_144 }
  private static var lowWaterMark: Int { 131_072 }

  private var machine: Machine
  private var input = LineBuffer()
  private var operation: OperationBox<Machine>?
  private var deadlines: SessionDeadlines
  private let tls: any TLSProvider
  private let requirement: TLSRequirement
  let transport = TransportHandler()

  private var context: ChannelHandlerContext?
  /// Why nothing more can be done on this connection; set once.
  private var ending: (any Error)?
  private var timer = DeadlineTimer()
  private var isPaused = false
  private var hasHeldRead = false
  private var isRunning = false
  private var isStartingTLS = false
  private var computation: SASLComputation?
  private var isProbing = false
  /// Whether nothing is said before TLS.
  private let startsWithTLS: Bool
  /// What the last TLS handshake showed.
  private(set) var tlsFacts: TLSFacts?

  init(
    machine: Machine, deadlines: SessionDeadlines, tls: any TLSProvider, requirement: TLSRequirement,
    startsWithTLS: Bool
  ) {
    self.machine = machine
    self.deadlines = deadlines
    self.tls = tls
    self.requirement = requirement
    self.startsWithTLS = startsWithTLS
    if startsWithTLS { transport.expectTLS() }
  }

  // MARK: From the session

  /// Starts an operation. The box is told how it ended, at once when the connection is gone.
  func begin(_ wanted: Machine.Operation, _ box: OperationBox<Machine>) {
    if let ending { return box.finish(.failure(ending)) }
    guard operation == nil else {
      return box.finish(.failure(Failure(.internalError, context: "two operations at once on one mail session")))
    }
    guard context != nil else { return box.finish(.failure(lost())) }
    operation = box
    if let action = machine.begin(wanted, &input) {
      _ = perform(action)
    } else {
      run()
    }
  }

  /// Closes the socket at once; a pending operation ends with the reason, or with what is at stake.
  func interrupt(_ reason: Interruption) {
    guard ending == nil else { return }
    if reason == .finished, operation == nil {
      // After QUIT there is time for TLS's own goodbye.
      ending = Failure(.runAborted, context: "the mail session is closed")
      context?.close(promise: nil)
      return
    }
    if let failure = machine.interrupted() {
      end(failure)
    } else if reason == .cancelled {
      end(CancellationError())
    } else {
      end(Failure(.runAborted, context: "the mail session was closed from our side"))
    }
  }

  /// The consumer took octets: reading goes on.
  func resumeReading() {
    guard isPaused, operation?.waitingOctets ?? 0 <= Self.lowWaterMark else { return }
    isPaused = false
    timer.restart()
    releaseRead()
    // The deadline begins anew: the wait was ours.
    run()
  }

  /// Takes a piece of the message that an operation sends; `nil` is its end.
  func feed(_ octets: [UInt8]?, for box: OperationBox<Machine>) {
    guard operation === box else { return }
    machine.feed(octets)
    box.fed()
    run()
  }

  /// Sets what is left of the time to connect, for implicit TLS.
  func limitHandshake(to time: TimeAmount) { deadlines.handshake = time }

  /// The machine's state, for the session's read-only properties.
  var currentMachine: Machine { machine }

  // MARK: From the channel

  func handlerAdded(context: ChannelHandlerContext) { self.context = context }

  func handlerRemoved(context: ChannelHandlerContext) {
    timer.cancel()
    self.context = nil
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard ending == nil else { return }
    let bytes = unwrapInboundIn(data)
    if isProbing { return probed(bytes) }
    timer.passed(octets: bytes.readableBytes)
    input.append(bytes)
    if operation == nil, input.readableOctets > Self.maximumIdleOctets {
      end(Failure(.protocolLimit, context: "the server sends without being asked"))
    } else {
      run()
    }
  }

  func read(context: ChannelHandlerContext) {
    if isPaused || computation != nil {
      hasHeldRead = true
    } else {
      context.read()
    }
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    if context.channel.isWritable { run() }
    context.fireChannelWritabilityChanged()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    // During a handshake the TLS provider gives the diagnosis; an unclean end of TLS is followed by channelInactive.
    if isStartingTLS { return }
    if error is NotTLSError {
      // The server spoke before our side of the handshake began.
      end(requirement.plainTextFailure)
    } else if error is IOError {
      end(lost())
    }
  }

  func channelInactive(context: ChannelHandlerContext) {
    if isProbing {
      end(machine.late(.greeting, tooSlow: false))
    } else if !isStartingTLS {
      end(lost())
    }
    context.fireChannelInactive()
  }

  // MARK: The loop

  private func run() {
    // A write may change the writability and come back here; the outer call goes on with what changed.
    guard !isRunning, ending == nil, operation != nil, !isStartingTLS, !isProbing, computation == nil else { return }
    isRunning = true
    while perform(machine.next(&input)) {}
    isRunning = false
    operation?.deliver()
  }

  /// Carries one action out; returns whether the machine is to be asked for the next.
  private func perform(_ action: DialogueAction<Machine.Outcome, Machine.Item>) -> Bool {
    guard let context, ending == nil else { return false }
    switch action {
    case .wait(let awaited, let step):
      // While reading is held back for the consumer, the wait is ours and not the server's.
      if isPaused { return false }
      timer.arm(awaited, step: step, after: time(for: awaited), on: context.eventLoop) { [weak self] in self?.late() }
      return false
    case .send(let bytes):
      context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
      timer.restart()
      return true
    case .sendBody: return sendBody(context)
    case .awaitBody:
      // The wait is ours and not the server's.
      timer.cancel()
      operation?.askForBody()
      return false
    case .startTLS:
      startTLS(context)
      return false
    case .compute(let computation):
      compute(computation, context)
      return false
    case .emit(let item, let octets):
      operation?.add(item, octets: octets)
      if !isPaused, operation?.waitingOctets ?? 0 > Self.highWaterMark {
        isPaused = true
        timer.cancel()
      }
      return true
    case .done(let outcome):
      finishOperation(.success(outcome))
      return false
    case .failed(let failure):
      finishOperation(.failure(failure))
      return false
    case .broken(let failure):
      end(failure)
      return false
    }
  }

  private func sendBody(_ context: ChannelHandlerContext) -> Bool {
    while context.channel.isWritable {
      guard let piece = machine.nextBodyPiece() else { return true }
      let octets = piece.readableBytes
      let timer = timer
      let written = context.eventLoop.makePromise(of: Void.self)
      written.futureResult.assumeIsolated().whenSuccess { timer.passed(octets: octets) }
      context.writeAndFlush(wrapOutboundOut(piece), promise: written)
      if machine.wantsBody { operation?.askForBody() }
    }
    // The step stays the same while the message is written: the rate is judged over the whole of it.
    timer.arm(.writing, step: -1, after: deadlines.answer, on: context.eventLoop) { [weak self] in self?.late() }
    return false
  }

  private func finishOperation(_ result: Result<Machine.Outcome, any Error>) {
    timer.cancel()
    isPaused = false
    computation = nil
    releaseRead()
    let box = operation
    operation = nil
    box?.finish(result)
  }

  /// What the loss of the connection means: before TLS has begun there was no session yet.
  private func lost() -> Failure {
    startsWithTLS && tlsFacts == nil
      ? Failure(.tlsHandshake, context: "the connection was closed before the handshake") : machine.lost()
  }

  /// Nothing more on this connection: the socket closes, the pending operation ends with the error.
  private func end(_ error: any Error) {
    guard ending == nil else { return }
    ending = error
    transport.closeNow()
    finishOperation(.failure(error))
  }

  // MARK: TLS

  private func startTLS(_ context: ChannelHandlerContext) {
    // Whatever came in the clear must never be read as if it had come through TLS.
    guard input.isEmpty else {
      // A server that speaks TLS before it was spoken to is broken; only on the way to TLS was somebody to be deceived.
      return end(
        Failure(
          requirement.isUpgrade ? .tlsStartTLSInjection : .tlsHandshake, context: "octets before the TLS handshake"))
    }
    isStartingTLS = true
    timer.arm(.handshake, step: 0, after: deadlines.handshake, on: context.eventLoop) { [weak self] in self?.late() }
    tls.secure(context.channel, above: transport, requirement).assumeIsolated().whenComplete { [weak self] result in
      guard let self else { return }
      self.isStartingTLS = false
      switch result {
      case .success(let answer):
        self.tlsFacts = answer.facts
        if let failure = answer.failure { return self.end(failure) }
        self.acknowledgeAtOnce()
        self.machine.secured()
        self.run()
      case .failure(let error): self.end(error)
      }
    }
  }

  /// After a handshake a server sends session tickets, and some (Postfix) hold back the answer to the first command until
  /// these are acknowledged, which Linux does after 40 ms only. TCP_QUICKACK (tcp(7)) has it done at once; it wears off
  /// by itself.
  private func acknowledgeAtOnce() {
    #if os(Linux)
      // A system that refuses it is 40 ms slower.
      _ = context?.channel.setOption(.tcpOption(.init(rawValue: 12)), value: 1)
    #endif
  }

  // MARK: Computations

  /// Runs a computation on a thread of its own. Reading is held back: what a server sends meanwhile has to wait, however
  /// much it is.
  private func compute(_ computation: SASLComputation, _ context: ChannelHandlerContext) {
    self.computation = computation
    timer.restart()
    timer.arm(.computation, step: 0, after: deadlines.answer, on: context.eventLoop) { [weak self] in self?.late() }
    SASLThreads.run(computation, on: context.eventLoop).assumeIsolated().whenComplete { [weak self] result in
      guard let self, self.ending == nil, self.computation != nil else { return }
      self.computation = nil
      self.timer.restart()
      self.machine.computed(
        result.flatMapError { _ in
          .success(.failure(Failure(.internalError, context: "the threads for logins do not run")))
        }.flatMap { $0 })
      self.releaseRead()
      self.run()
    }
  }

  private func releaseRead() {
    guard hasHeldRead else { return }
    hasHeldRead = false
    context?.read()
  }

  // MARK: Deadlines

  private func time(for awaited: Awaited) -> TimeAmount {
    switch awaited {
    case .greeting, .answer, .body, .writing, .computation: deadlines.answer
    case .finalAnswer: deadlines.finalAnswer
    case .handshake: deadlines.handshake
    }
  }

  private func late() {
    guard ending == nil, let context, let awaited = timer.awaited else { return }
    if isProbing { return end(machine.late(.greeting, tooSlow: false)) }
    if let computation { return end(computation.late) }
    if awaited == .body || awaited == .writing {
      let window = time(for: awaited)
      let (needed, overflow) = Int64(deadlines.minimumOctetsPerSecond).multipliedReportingOverflow(
        by: window.nanoseconds)
      let wanted = overflow ? Int64.max : needed / 1_000_000_000
      let got = timer.takeOctets()
      if Int64(got) >= wanted, got > 0 {
        return timer.extend(by: window, on: context.eventLoop) { [weak self] in self?.late() }
      }
      return end(machine.late(awaited, tooSlow: got > 0))
    }
    if awaited == .greeting, !transport.hasReceived, tlsFacts == nil { return probe(context) }
    isStartingTLS = false
    end(machine.late(awaited, tooSlow: false))
  }

  /// A TLS server waits for us to speak and never greets. Once the greeting is overdue nothing is lost by asking: an
  /// unfinished hello makes any TLS server answer with an alert, and a mail server is closed right after.
  private func probe(_ context: ChannelHandlerContext) {
    isProbing = true
    transport.writeRaw(ByteBuffer(bytes: [0x16, 0x03, 0x01, 0x00, 0x05, 0x01, 0x00, 0x00, 0x01, 0x03]))
    timer.cancel()
    // Long enough for a server that is slow: what it then says is the one thing that helps.
    timer.arm(.greeting, step: -2, after: min(deadlines.answer, .seconds(5)), on: context.eventLoop) { [weak self] in
      self?.late()
    }
  }

  private func probed(_ bytes: ByteBuffer) {
    let first = bytes.getInteger(at: bytes.readerIndex, as: UInt8.self)
    if first == 0x15 || first == 0x16 {
      end(Failure(.tlsPortMismatch, context: "the port speaks TLS, the profile expects plain text"))
    } else {
      end(machine.late(.greeting, tooSlow: false))
    }
  }
}
