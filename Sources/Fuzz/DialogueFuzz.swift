import NIOCore
import PostriderCore

@testable import MailProtocols

/// A dialogue that is fed a server's octets in pieces of a size that the input chooses.
///
/// What has to hold beside not crashing: a broken session stays broken, an operation ends once, what is shown to people is
/// short and without control characters, and nothing is asked for that an answer could have smuggled in.
struct DialogueFuzz<Machine: Dialogue> {
  var machine: Machine
  var rest: Slice<UnsafeRawBufferPointer>
  let piece: Int
  private var input = LineBuffer()
  private var isBroken = false

  init(_ machine: Machine, _ rest: Slice<UnsafeRawBufferPointer>, piece: Int) {
    self.machine = machine
    self.rest = rest
    self.piece = max(1, piece)
  }

  /// Runs an operation to its end, or until the server says nothing more. Returns whether the session goes on.
  mutating func run(_ operation: Machine.Operation, emit: (Machine.Item) -> Void = { _ in }) -> Bool {
    guard !isBroken else { return false }
    var action = machine.begin(operation, &input) ?? machine.next(&input)
    while true {
      switch action {
      case .wait, .awaitBody:
        guard let bytes = nextBytes() else { return false }
        input.append(bytes)
        action = machine.next(&input)
      case .send(let bytes):
        check(String(buffer: bytes))
        action = machine.next(&input)
      case .sendBody:
        while machine.nextBodyPiece() != nil {}
        action = machine.next(&input)
      case .emit(let item, _):
        emit(item)
        action = machine.next(&input)
      case .startTLS:
        machine.secured()
        action = machine.next(&input)
      case .compute(let computation):
        machine.computed(computation.run())
        action = machine.next(&input)
      case .done: return true
      case .failed(let failure):
        check(failure)
        return true
      case .broken(let failure):
        check(failure)
        isBroken = true
        return false
      }
    }
  }

  private mutating func nextBytes() -> ByteBuffer? {
    guard !rest.isEmpty else { return nil }
    defer { rest = rest.dropFirst(piece) }
    return ByteBuffer(bytes: rest.prefix(piece))
  }

  /// A command is whole lines, however a server's answer looked.
  private func check(_ command: String) {
    precondition(command.hasSuffix("\r\n"), "a command that does not end")
    precondition(!command.contains("\0"), "NUL in a command")
  }

  private func check(_ failure: Failure) {
    guard let words = failure.serverWords else { return }
    precondition(words.unicodeScalars.count <= 600, "too many words of the server")
    precondition(words.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7F }, "control characters")
    precondition(!words.contains("correct horse"), "a secret in the server's words")
  }
}

private let credentials = Credentials(userName: "anna", password: Secret("correct horse"))

/// The input's first octet chooses how the session goes, the second how the octets are cut.
private func split(_ bytes: UnsafeRawBufferPointer) -> (choice: UInt8, piece: Int, rest: Slice<UnsafeRawBufferPointer>)?
{
  guard bytes.count >= 2 else { return nil }
  return (bytes[0], [1, 2, 3, 7, 64, 1_024, 65_536][Int(bytes[1]) % 7], bytes.dropFirst(2))
}

/// A whole POP3 session.
func fuzzPOP3(_ bytes: UnsafeRawBufferPointer) {
  guard let (choice, piece, rest) = split(bytes) else { return }
  var session = DialogueFuzz(POP3Dialogue(tls: choice & 1 == 0 ? .none : .starttls), rest, piece: piece)
  guard session.run(.greeting), session.run(.capabilities) else { return }
  if choice & 1 == 1 { guard session.run(.startTLS), session.run(.capabilities) else { return } }
  let login: POP3Login? =
    switch choice >> 1 & 3 {
    case 0: .userPass(userName: "anna", password: Secret("correct horse"))
    case 1: .sasl(LoginMechanism(userName: "anna", password: Secret("correct horse")), credentials)
    case 2: (try? CRAMMD5Mechanism(userName: "anna", password: Secret("correct horse"))).map { .sasl($0, credentials) }
    default:
      (try? SCRAMMechanism(
        .sha256, userName: "anna", password: Secret("correct horse"), authorizationIdentity: nil, host: "h"))
        .map { .sasl($0, credentials) }
    }
  if let login { guard session.run(.login(login)) else { return } }
  var numbers: [Int] = []
  guard
    session.run(
      .list,
      emit: { item in
        guard case .entries(let entries) = item else { preconditionFailure("a list gives entries") }
        for entry in entries {
          precondition(entry.number > numbers.last ?? 0 && (1...70).contains(entry.uidl.text.utf8.count))
          numbers.append(entry.number)
        }
      })
  else { return }
  var open: Int?
  var octets: [Int: Int] = [:]
  let budget = RetrievalBudget(octets: choice & 0x40 == 0 ? .max : 100)
  guard
    session.run(
      .retrieve(Array(numbers.prefix(20)), maximumOctets: 2_000, budget: budget),
      emit: { item in
        guard case .message(let number, let chunk) = item else { preconditionFailure("RETR gives messages") }
        precondition(open == nil || open == number, "two messages at once")
        switch chunk {
        case .octets(let part):
          open = number
          octets[number, default: 0] += part.count
          precondition(octets[number, default: 0] <= 2_000 + part.count, "more than allowed")
        case .end(let size):
          precondition(Int(size) == octets[number, default: 0], "a size that is not what came")
          open = nil
        case .refused: open = nil
        }
      })
  else { return }
  guard session.run(.top(numbers.first ?? 1, lines: 0)), session.run(.delete(Array(numbers.prefix(70)))) else { return }
  _ = session.run(.quit)
}

/// A whole SMTP session.
func fuzzSMTP(_ bytes: UnsafeRawBufferPointer) {
  guard let (choice, piece, rest) = split(bytes) else { return }
  var session = DialogueFuzz(SMTPDialogue(tls: choice & 1 == 0 ? .none : .starttls), rest, piece: piece)
  guard session.run(.greeting), session.run(.hello("client.example")) else { return }
  if choice & 1 == 1 { guard session.run(.startTLS), session.run(.hello("client.example")) else { return } }
  let plain = PlainMechanism(userName: "anna", password: Secret("correct horse"), authorizationIdentity: nil)
  let login = LoginMechanism(userName: "anna", password: Secret("correct horse"))
  guard session.run(.login(choice & 2 == 0 ? plain : login, credentials)) else { return }
  let message = SMTPMessage(Array("Subject: x\r\n\r\n.dot\r\n".utf8))
  for _ in 0..<2 {
    let send = SMTPOperation.send(from: "a@example.org", to: ["b@example.org", "c@example.org"], message: message)
    guard session.run(send) else { return }
  }
  _ = session.run(.quit)
}
