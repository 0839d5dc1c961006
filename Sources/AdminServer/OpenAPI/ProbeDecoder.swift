/// Gives a value whatever it asks for and writes it down.
struct ProbeDecoder: Decoder {
  let record: AnswerProbe.Record
  var codingPath: [any CodingKey] { [] }
  var userInfo: [CodingUserInfoKey: Any] { [:] }

  func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedDecodingContainer<Key> {
    KeyedDecodingContainer(Fields<Key>(record: record))
  }

  func unkeyedContainer() throws -> any UnkeyedDecodingContainer {
    throw AnswerProbe.Unreadable(description: "lists of several types are not read")
  }

  func singleValueContainer() -> any SingleValueDecodingContainer { Single(record: record) }

  private struct Fields<Key: CodingKey>: KeyedDecodingContainerProtocol {
    let record: AnswerProbe.Record
    var codingPath: [any CodingKey] { [] }
    var allKeys: [Key] { [] }

    func contains(_ key: Key) -> Bool { true }
    func decodeNil(forKey key: Key) -> Bool { false }

    private func note<Value: Decodable>(_ type: Value.Type, _ key: Key, isOptional: Bool) throws {
      record.add(
        AnswerShape.Property(
          name: key.stringValue, shape: try AnswerProbe.shape(of: type), isOptional: isOptional))
    }

    func decode<Value: Decodable>(_ type: Value.Type, forKey key: Key) throws -> Value {
      try note(type, key, isOptional: false)
      return try AnswerProbe.sample(of: type)
    }

    func decodeIfPresent<Value: Decodable>(_ type: Value.Type, forKey key: Key) throws -> Value? {
      try note(type, key, isOptional: true)
      return nil
    }

    // The compiler calls these for plain types.
    func decodeIfPresent(_ type: Bool.Type, forKey key: Key) throws -> Bool? { try absent(type, key) }
    func decodeIfPresent(_ type: String.Type, forKey key: Key) throws -> String? { try absent(type, key) }
    func decodeIfPresent(_ type: Double.Type, forKey key: Key) throws -> Double? { try absent(type, key) }
    func decodeIfPresent(_ type: Int.Type, forKey key: Key) throws -> Int? { try absent(type, key) }
    func decodeIfPresent(_ type: Int64.Type, forKey key: Key) throws -> Int64? { try absent(type, key) }

    private func absent<Value: Decodable>(_ type: Value.Type, _ key: Key) throws -> Value? {
      try note(type, key, isOptional: true)
      return nil
    }

    func nestedContainer<NestedKey: CodingKey>(
      keyedBy type: NestedKey.Type, forKey key: Key
    ) throws -> KeyedDecodingContainer<NestedKey> {
      throw AnswerProbe.Unreadable(description: "\(key.stringValue) is read by hand")
    }

    func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer {
      throw AnswerProbe.Unreadable(description: "\(key.stringValue) is read by hand")
    }

    func superDecoder() throws -> any Decoder { ProbeDecoder(record: record) }
    func superDecoder(forKey key: Key) throws -> any Decoder { ProbeDecoder(record: record) }
  }

  private struct Single: SingleValueDecodingContainer {
    let record: AnswerProbe.Record
    var codingPath: [any CodingKey] { [] }

    func decodeNil() -> Bool { false }

    func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
      record.set(try AnswerProbe.shape(of: type))
      return try AnswerProbe.sample(of: type)
    }
  }
}
