// What etcd's own Go client offers, each part once, against the server at ENDPOINTS: the calls, and the wrappers that other
// programs build on (namespace, ordering, leasing, mirror, snapshot).
package libraries

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
	"go.etcd.io/etcd/client/v3/snapshot"
	"go.uber.org/zap"
)

const patience = 30 * time.Second

// To one member: what reads without consensus (STM, the resolver) may find another one behind, be it etcd or Tenure.
func connect(t *testing.T) (*clientv3.Client, context.Context) {
	t.Helper()
	endpoints := strings.Split(os.Getenv("ENDPOINTS"), ",")[:1]
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(func() { cancel(); client.Close() })
	return client, ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same[T comparable](t *testing.T, found, wanted T) {
	t.Helper()
	if found != wanted {
		t.Fatalf("found %v, wanted %v", found, wanted)
	}
}

func TestPutGetDelete(t *testing.T) {
	client, ctx := connect(t)
	put, err := client.Put(ctx, "kv/a", "1")
	must(t, err)
	again, err := client.Put(ctx, "kv/a", "2", clientv3.WithPrevKV())
	must(t, err)
	same(t, string(again.PrevKv.Value), "1")
	got, err := client.Get(ctx, "kv/a", clientv3.WithRev(put.Header.Revision))
	must(t, err)
	same(t, string(got.Kvs[0].Value), "1")
	_, err = client.Get(ctx, "kv/a", clientv3.WithRev(again.Header.Revision+1000))
	same(t, err, rpctypes.ErrFutureRev)
	_, err = client.Put(ctx, "kv/a", "", clientv3.WithIgnoreValue())
	must(t, err)
	_, err = client.Put(ctx, "", "")
	same(t, err, rpctypes.ErrEmptyKey)
	gone, err := client.Delete(ctx, "kv/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	must(t, err)
	same(t, string(gone.PrevKvs[0].Value), "2")
}

func TestRanges(t *testing.T) {
	client, ctx := connect(t)
	for i := 0; i < 10; i++ {
		_, err := client.Put(ctx, fmt.Sprintf("range/%d", i), fmt.Sprint(9-i))
		must(t, err)
	}
	keys := func(options ...clientv3.OpOption) string {
		got, err := client.Get(ctx, "range/", append(options, clientv3.WithPrefix())...)
		must(t, err)
		all := fmt.Sprintf("%d %v:", got.Count, got.More)
		for _, kv := range got.Kvs {
			all += strings.TrimPrefix(string(kv.Key), "range/")
		}
		return all
	}
	same(t, keys(clientv3.WithLimit(3)), "10 true:012")
	same(t, keys(clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend), clientv3.WithLimit(2)), "10 true:98")
	same(t, keys(clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend), clientv3.WithLimit(1)), "10 true:9")
	same(t, keys(clientv3.WithCountOnly()), "10 false:")
	same(t, keys(clientv3.WithSerializable(), clientv3.WithKeysOnly(), clientv3.WithLimit(1)), "10 true:0")
	from, err := client.Get(ctx, "range/7", clientv3.WithRange("range0"))
	must(t, err)
	same(t, from.Count, 3)
	last, err := client.Get(ctx, "range/", clientv3.WithLastKey()...)
	must(t, err)
	same(t, string(last.Kvs[0].Key), "range/9")
}

func TestTransactions(t *testing.T) {
	client, ctx := connect(t)
	client.Delete(ctx, "txn/", clientv3.WithPrefix())
	create := func() *clientv3.TxnResponse {
		done, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision("txn/a"), "=", 0)).
			Then(clientv3.OpPut("txn/a", "x"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("txn/b", "y")}, nil)).
			Else(clientv3.OpGet("txn/a"), clientv3.OpGet("txn/", clientv3.WithPrefix())).Commit()
		must(t, err)
		return done
	}
	same(t, create().Succeeded, true)
	other := create()
	same(t, other.Succeeded, false)
	same(t, len(other.Responses[1].GetResponseRange().Kvs), 2)
	_, err := client.Txn(ctx).Then(clientv3.OpPut("txn/a", "1"), clientv3.OpPut("txn/a", "2")).Commit()
	same(t, err, rpctypes.ErrDuplicateKey)
	prefix, err := client.Txn(ctx).If(clientv3.Compare(clientv3.Version("txn/").WithPrefix(), ">", 0)).Commit()
	must(t, err)
	same(t, prefix.Succeeded, true)
}

func TestLeases(t *testing.T) {
	client, ctx := connect(t)
	lease, err := client.Grant(ctx, 60)
	must(t, err)
	_, err = client.Put(ctx, "lease/a", "", clientv3.WithLease(lease.ID))
	must(t, err)
	left, err := client.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	must(t, err)
	same(t, string(left.Keys[0]), "lease/a")
	renewed, err := client.KeepAliveOnce(ctx, lease.ID)
	must(t, err)
	same(t, renewed.TTL, 60)
	stream, err := client.KeepAlive(ctx, lease.ID)
	must(t, err)
	same(t, (<-stream).ID, lease.ID)
	_, err = client.Revoke(ctx, lease.ID)
	must(t, err)
	for range stream {
	}
	gone, err := client.Get(ctx, "lease/a")
	must(t, err)
	same(t, gone.Count, 0)
	_, err = client.KeepAliveOnce(ctx, lease.ID)
	same(t, err, rpctypes.ErrLeaseNotFound)
	short, err := client.Grant(ctx, 1)
	must(t, err)
	watched := client.Watch(ctx, "lease/b", clientv3.WithFilterPut())
	_, err = client.Put(ctx, "lease/b", "", clientv3.WithLease(short.ID))
	must(t, err)
	same(t, (<-watched).Events[0].Type, clientv3.EventTypeDelete)
}

func TestWatches(t *testing.T) {
	client, ctx := connect(t)
	first, err := client.Put(ctx, "watch/a", "1")
	must(t, err)
	_, err = client.Put(ctx, "watch/a", "2")
	must(t, err)
	_, err = client.Delete(ctx, "watch/a")
	must(t, err)
	watched := client.Watch(ctx, "watch/", clientv3.WithPrefix(), clientv3.WithRev(first.Header.Revision), clientv3.WithPrevKV())
	var seen string
	for len(seen) < 3 {
		told := <-watched
		must(t, told.Err())
		for _, event := range told.Events {
			switch {
			case event.IsCreate():
				seen += "c"
			case event.IsModify():
				seen += "m" + string(event.PrevKv.Value)
			default:
				seen += "d" + string(event.PrevKv.Value)
			}
		}
	}
	same(t, seen, "cm1d2")
	must(t, client.RequestProgress(ctx))
	progress := <-watched
	same(t, progress.IsProgressNotify(), true)
	_, err = client.Compact(ctx, first.Header.Revision+1)
	must(t, err)
	late := <-client.Watch(ctx, "watch/a", clientv3.WithRev(first.Header.Revision))
	same(t, late.Err(), rpctypes.ErrCompacted)
	same(t, late.CompactRevision, first.Header.Revision+1)
}

func TestMaintenanceAndMembers(t *testing.T) {
	client, ctx := connect(t)
	members, err := client.MemberList(ctx)
	must(t, err)
	same(t, len(members.Members) > 0, true)
	must(t, client.Sync(ctx))
	for _, endpoint := range client.Endpoints() {
		status, err := client.Status(ctx, endpoint)
		must(t, err)
		same(t, status.Leader != 0 && status.DbSize > 0 && len(status.Errors) == 0, true)
		_, err = client.HashKV(ctx, endpoint, 0)
		must(t, err)
		_, err = client.Defragment(ctx, endpoint)
		must(t, err)
	}
	_, err = client.MemberAdd(ctx, members.Members[0].PeerURLs)
	same(t, err, rpctypes.ErrPeerURLExist)
	_, err = client.MemberRemove(ctx, 12345)
	same(t, err, rpctypes.ErrMemberNotFound)
	alarms, err := client.AlarmList(ctx)
	must(t, err)
	same(t, len(alarms.Alarms), 0)
}

func TestNamespaceAndOrdering(t *testing.T) {
	client, ctx := connect(t)
	kv := ordering.NewKV(namespace.NewKV(client.KV, "space/"), func(clientv3.Op, clientv3.OpResponse, int64) error { return ordering.ErrNoGreaterRev })
	watched := namespace.NewWatcher(client.Watcher, "space/").Watch(ctx, "a")
	_, err := kv.Put(ctx, "a", "1")
	must(t, err)
	inside, err := kv.Get(ctx, "", clientv3.WithFromKey())
	must(t, err)
	same(t, string(inside.Kvs[0].Key), "a")
	same(t, string((<-watched).Events[0].Kv.Key), "a")
	outside, err := client.Get(ctx, "space/a")
	must(t, err)
	same(t, outside.Count, 1)
}

func TestLeasingCache(t *testing.T) {
	client, ctx := connect(t)
	first, closeFirst, err := leasing.NewKV(client, "leasing/")
	must(t, err)
	defer closeFirst()
	other, _ := connect(t)
	second, closeSecond, err := leasing.NewKV(other, "leasing/")
	must(t, err)
	defer closeSecond()
	_, err = first.Put(ctx, "cached", "1")
	must(t, err)
	for _, value := range []string{"1", "2", "3"} {
		_, err = second.Put(ctx, "cached", value)
		must(t, err)
		for _, kv := range []clientv3.KV{first, second} {
			got, err := kv.Get(ctx, "cached")
			must(t, err)
			same(t, string(got.Kvs[0].Value), value)
		}
	}
}

func TestMirror(t *testing.T) {
	client, ctx := connect(t)
	_, err := client.Put(ctx, "mirror/a", "1")
	must(t, err)
	syncer := mirror.NewSyncer(client, "mirror/", 0)
	base, failed := syncer.SyncBase(ctx)
	count := 0
	for part := range base {
		count += len(part.Kvs)
	}
	must(t, <-failed)
	same(t, count, 1)
	updates := syncer.SyncUpdates(ctx)
	_, err = client.Put(ctx, "mirror/b", "2")
	must(t, err)
	same(t, string((<-updates).Events[0].Kv.Key), "mirror/b")
}

func TestSnapshot(t *testing.T) {
	client, ctx := connect(t)
	stream, err := client.Snapshot(ctx)
	must(t, err)
	var whole bytes.Buffer
	_, err = io.Copy(&whole, stream)
	must(t, err)
	same(t, whole.Len() > 0, true)
	config := clientv3.Config{Endpoints: client.Endpoints()[:1]}
	_, err = snapshot.SaveWithVersion(ctx, zap.NewNop(), config, t.TempDir()+"/saved.db")
	must(t, err)
}
