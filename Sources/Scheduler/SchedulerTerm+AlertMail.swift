import PostriderCore

/// Alerts go out by mail: gathered, each once, through the queue of outgoing mail like any other message.
extension SchedulerTerm {
  /// Looks for alerts that have to be mailed, and hands them over.
  func mailAlerts() async {
    guard let compose = configuration.composeAlertMail else { return }
    var counted: ContinuousClock.Instant?
    while !Task.isCancelled {
      // Cancelled: the loop's condition sees it.
      try? await Task.sleep(for: configuration.alertMail)
      // Counting the mailboxes of big profiles takes its time, and must not keep other news back.
      if counted.map({ ContinuousClock.now - $0 >= configuration.failingProfiles }) ?? true {
        await attempt("failing profiles") { try await self.store.reportFailingProfiles() }
        counted = .now
      }
      await attempt("alert mail") {
        for digest in try await self.store.alertDigests(pause: self.configuration.alertMailPause) {
          try await self.mail(digest, compose)
        }
      }
      await attempt("held answers") { try await self.store.forgetHeldAnswers() }
    }
  }

  private func mail(_ digest: AlertDigest, _ compose: SchedulerConfiguration.AlertComposer) async throws {
    let mail: OutgoingSubmission
    do {
      mail = try compose(digest)
    } catch {
      // Such as an address that cannot be written in a header: the alerts stand on the wall all the same.
      logger.warning(
        "Alerts cannot be mailed",
        metadata: ["error": "\(error)", "organization.id": "\(digest.organizationID)"])
      return
    }
    let isSent = try await store.submit(mail, of: digest, pause: configuration.alertMailPause)
    if isSent { logger.info("Mailed alerts", metadata: ["alerts": "\(digest.alerts.count)"]) }
  }
}
