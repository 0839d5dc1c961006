/// What a person does with batches. Every call works in the principal's organization alone and throws ``StoreError``.
public protocol BatchStore: Sendable {
  /// Makes a batch of a checked draft; its mailboxes are those that the filter meets now.
  func createBatch(_ draft: BatchDraft, by principal: Principal) async throws -> Batch
  /// Batches without failures, newest first.
  func batches(_ page: PageRequest, for principal: Principal) async throws -> Page<Batch>
  /// One batch with its first failures.
  func batch(_ id: BatchID, for principal: Principal) async throws -> Batch
  /// What became of its rows, by number; those in one state, or all.
  func batchResults(
    of id: BatchID, in state: BatchRowState?, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<BatchResult>
  /// Ends a batch; rows that were not carried out stay undone, tests that no worker has begun are taken back. Throws
  /// `not-cancelable` when it is over.
  func cancelBatch(_ id: BatchID, by principal: Principal) async throws -> Batch

  /// Begins an import whose rows come in parts; nothing is carried out before ``finishImport(_:by:)``.
  func beginImport(dryRun: Bool, by principal: Principal) async throws -> BatchID
  /// Adds rows, at most 1,000 at a time, in the order of their numbers.
  func addImportRows(_ rows: [ImportRow], to id: BatchID, by principal: Principal) async throws
  /// All rows are there: the import begins.
  func finishImport(_ id: BatchID, by principal: Principal) async throws -> Batch
  /// The rest of the file will not come: forgets what came of it.
  func abandonImport(_ id: BatchID, by principal: Principal) async throws
}

/// What a step of a batch came to.
public enum BatchStep: Hashable, Sendable {
  /// Rows were carried out; there may be more to do at once.
  case worked
  /// Nothing can be done at once.
  case idle
}

/// Where the API's processes get the work of batches. Any number of them share it. Calls throw ``StoreError``.
public protocol BatchQueue: Sendable {
  /// Takes the batch that waits longest and carries its next rows out, in one transaction that also counts them: a
  /// process that is killed has done a step wholly or not at all. Two processes never work on one batch at once.
  func advanceBatch() async throws -> BatchStep
  /// Returns when this process has made a batch, or after the time.
  func waitForBatch(atMost duration: Duration) async
  /// Deletes old batches, files that never came to their end, and answers kept for repeated requests.
  func tidyBatches() async throws
}
