-- Several sessions may send for one mailbox side by side: lane 0, which the schedule's row stands for, and the lanes that
-- sessions open beside it. A lane's writes are guarded by its own last fence: its lease may be older than lane 0's.

ALTER TABLE mailbox_schedule ADD COLUMN lane_fences bigint[];
ALTER TABLE outgoing_email ADD COLUMN lane smallint NOT NULL DEFAULT 0;

CREATE FUNCTION with_lane_fence(fences bigint[], lane int, fence bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  fences[lane] := fence;
  RETURN fences;
END
$$;
