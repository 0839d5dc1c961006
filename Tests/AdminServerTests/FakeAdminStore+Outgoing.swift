import FoundationEssentials
import PostriderCore

extension FakeAdminStore {
  func submit(_ message: OutgoingSubmission, by principal: Principal) async throws -> OutgoingEmail {
    try checked { state in
      state.writes.append("submit \(message.mailboxID) \(message.recipients.joined(separator: ","))")
      let email = OutgoingEmail(
        id: OutgoingEmailID(Int64(state.outgoing.count + 1)), mailboxID: message.mailboxID,
        state: message.hold ? .draft : .pendingSend, priority: message.priority, sendAfter: message.sendAfter,
        nextTryAt: nil, attempts: 0, failure: nil, messageID: message.messageID,
        idempotencyKey: message.idempotencyKey, subject: message.subject, sender: "a@example.com",
        sizeOctets: message.raw.sizeOctets, createdAt: Self.date, updatedAt: Self.date, sentAt: nil,
        recipients: message.recipients.map { OutgoingRecipient(address: $0) })
      state.outgoing.append(email)
      switch message.raw {
      case .bytes(let bytes): state.composed = String(decoding: bytes, as: UTF8.self)
      case .file(let path, _):
        state.composed = String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self)
      }
      state.submissions.append(message)
      return email
    }
  }

  func outgoingEmails(
    mailbox: MailboxID?, state wanted: OutgoingState?, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<OutgoingEmail> {
    try checked { state in
      self.page(state.outgoing.filter { wanted == nil || $0.state == wanted }, page)
    }
  }

  func outgoingEmail(_ id: OutgoingEmailID, for principal: Principal) async throws -> OutgoingEmail {
    try checked { state in
      guard let email = state.outgoing.first(where: { $0.id == id }) else { throw StoreError.notFound("message") }
      return email
    }
  }

  func retryOutgoing(
    _ id: OutgoingEmailID, resendUncertain: Bool, by principal: Principal
  ) async throws -> OutgoingEmail {
    try checked { state in
      guard let index = state.outgoing.firstIndex(where: { $0.id == id }) else {
        throw StoreError.notFound("message")
      }
      state.writes.append("retry \(id) \(resendUncertain)")
      state.outgoing[index].state = .pendingSend
      return state.outgoing[index]
    }
  }

  func cancelOutgoing(_ id: OutgoingEmailID, by principal: Principal) async throws -> OutgoingEmail {
    try checked { state in
      guard let index = state.outgoing.firstIndex(where: { $0.id == id }) else {
        throw StoreError.notFound("message")
      }
      state.outgoing[index].state = .canceled
      return state.outgoing[index]
    }
  }
}
