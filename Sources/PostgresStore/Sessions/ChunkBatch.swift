import PostriderCore

/// Gathers chunks of contents into statements of about 1 MiB, so that many small messages cost few statements and a
/// big one never lies in memory as a whole.
struct ChunkBatch {
  private var contents: [Int64?] = []
  private var positions: [Int64?] = []
  private var octets: [[UInt8]?] = []
  private var size = 0
  private let organization: OrganizationID
  private let send: (Statement) throws -> Void

  init(organization: OrganizationID, send: @escaping (Statement) throws -> Void) {
    self.organization = organization
    self.send = send
  }

  /// Adds a content's chunks.
  mutating func add(_ content: Content, id: Int64) throws {
    try ContentReader.chunks(of: content) { position, chunk in
      if size + chunk.count > ContentReader.chunkOctets || contents.count >= 1_000 { try flush() }
      contents.append(id)
      positions.append(Int64(position))
      octets.append(chunk)
      size += chunk.count
    }
  }

  /// Sends what is gathered.
  mutating func flush() throws {
    if contents.isEmpty { return }
    try send(
      .kept(
        """
        INSERT INTO content_chunk (content_id, position, organization_id, octets)
        SELECT i.content_id, i.position, $4, i.octets FROM unnest($1, $2, $3) AS i (content_id, position, octets)
        """, [.ints(contents), .ints(positions), .bytesArray(octets), .id(organization)]))
    contents = []
    positions = []
    octets = []
    size = 0
  }
}
