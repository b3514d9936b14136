/**
 * The parts of a cache that may be written, and how they hear of each other.
 *
 * @module
 */

import type { SuperblockStore } from "../log/superblock_store.ts";
import type { LogWriter } from "../log/writer.ts";
import { Bypass } from "./bypass.ts";
import type { Core } from "./core.ts";
import { HistoryHold } from "./history_hold.ts";
import { IdleMark } from "./idle_mark.ts";
import type { Reads } from "./reads.ts";
import type { Room } from "./room.ts";
import { Tail } from "./tail.ts";
import { WriteBack } from "./writeback.ts";
import { Writes } from "./writes.ts";

/** The parts that exist only when the log may be written. */
export interface Engine {
  writer: LogWriter;
  store: SuperblockStore;
  room: Room;
  tail: Tail;
  writes: Writes;
  writeback: WriteBack;
  idleMark: IdleMark;
  hold: HistoryHold;
}

/** Makes them; write-back is yet to be started. */
export function makeEngine(
  core: Core,
  writer: LogWriter,
  store: SuperblockStore,
  room: Room,
  reads: Reads,
): Engine {
  const tail = new Tail(core, writer, store, room, reads);
  const writeback = new WriteBack(core, writer, tail, room);
  const bypass = new Bypass(core, writer, writeback.backing);
  const hold = new HistoryHold(core, writer, store, writeback);
  room.onSpaceNeeded = () => core.history.held ? hold.giveUp() : writeback.needSpace();
  room.fullReason = () =>
    core.history.held
      ? "history is held, see nbdboost hold --release"
      : "see the state of the backing device";
  core.copies.attach(writer, room);
  room.holdClients = () => core.statistics.unrecordedLosses > 0;
  const idleMark = new IdleMark(core.clock, writer, store);
  writer.onProgress = () => {
    idleMark.noteProgress();
    return room.wake();
  };
  const writes = new Writes(core, writer, reads, room, bypass);
  writes.onFlush = () => writeback.order.noteFlush();
  writer.onFailure = (error) => core.warn(error.message, "error");
  return {
    writer,
    store,
    room,
    tail,
    writeback,
    idleMark,
    hold,
    writes,
  };
}
