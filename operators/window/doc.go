// Package window counts flow rows in event-time windows.
//
// Record batches of schemas.Flows or schemas.EnrichedFlows flow in; rows of the tables windows_<name> flow
// out, one row a window and group. A window [start, end) closes once, when the
// watermark reaches its end; rows that come later become correction rows in the
// batch that brings them, which add up: sum() over the table is always right.
// Shards write partial rows of the same group, and the view windows_<name>_merged
// merges them.
//
// What of a table depends on what. With room for every group (MaxGroups), the
// merged rows are a function of the flow rows alone, whatever the batches, their
// order and the shards were. Past MaxGroups or MaxStateMiB the light groups fold into
// one overflow group a window (see shrink). Which keys keep a group of their own, and
// since when, then depends on the order of rows: in a window with an overflow row the
// other rows are lower bounds. Totals over all groups stay exact, and every key that is
// heavy by rows or by one of the sums has its row.
//
// The operator owns no goroutine and reads no clock. Its state is ordinary memory;
// record batches that it gives away come from the allocator it was made with, and
// those it is given are let go before Apply returns.
package window
