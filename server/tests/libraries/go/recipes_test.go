// The recipes that etcd's Go client brings: each is made of transactions, watches and leases on ordinary keys.
package libraries

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func session(t *testing.T, client *clientv3.Client) *concurrency.Session {
	t.Helper()
	opened, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	must(t, err)
	t.Cleanup(func() { opened.Close() })
	return opened
}

func TestMutex(t *testing.T) {
	client, ctx := connect(t)
	first := concurrency.NewMutex(session(t, client), "mutex")
	must(t, first.Lock(ctx))
	second := concurrency.NewMutex(session(t, client), "mutex")
	same(t, second.TryLock(ctx), concurrency.ErrLocked)
	granted := make(chan error)
	go func() { granted <- second.Lock(ctx) }()
	owned, err := client.Txn(ctx).If(first.IsOwner()).Commit()
	must(t, err)
	same(t, owned.Succeeded, true)
	must(t, first.Unlock(ctx))
	must(t, <-granted)
	must(t, second.Unlock(ctx))
}

func TestMutexExcludes(t *testing.T) {
	client, ctx := connect(t)
	counter := 0
	var all sync.WaitGroup
	for i := 0; i < 8; i++ {
		own := session(t, client)
		all.Add(1)
		go func() {
			defer all.Done()
			locker := concurrency.NewLocker(own, "exclusion")
			for i := 0; i < 5; i++ {
				locker.Lock()
				seen := counter
				time.Sleep(time.Millisecond)
				counter = seen + 1
				locker.Unlock()
			}
		}()
	}
	all.Wait()
	same(t, counter, 40)
	must(t, ctx.Err())
}

func TestASessionThatEndsFreesItsLock(t *testing.T) {
	client, ctx := connect(t)
	dying, err := concurrency.NewSession(client, concurrency.WithTTL(1))
	must(t, err)
	must(t, concurrency.NewMutex(dying, "orphan").Lock(ctx))
	dying.Orphan()
	must(t, concurrency.NewMutex(session(t, client), "orphan").Lock(ctx))
}

func TestElection(t *testing.T) {
	client, ctx := connect(t)
	first, second := concurrency.NewElection(session(t, client), "election"), concurrency.NewElection(session(t, client), "election")
	_, err := first.Leader(ctx)
	same(t, err, concurrency.ErrElectionNoLeader)
	must(t, first.Campaign(ctx, "one"))
	observed := concurrency.NewElection(session(t, client), "election").Observe(ctx)
	same(t, string((<-observed).Kvs[0].Value), "one")
	must(t, first.Proclaim(ctx, "still one"))
	same(t, string((<-observed).Kvs[0].Value), "still one")
	elected := make(chan error)
	go func() { elected <- second.Campaign(ctx, "two") }()
	must(t, first.Resign(ctx))
	must(t, <-elected)
	same(t, string((<-observed).Kvs[0].Value), "two")
	resumed := concurrency.ResumeElection(session(t, client), "election", second.Key(), second.Rev())
	must(t, resumed.Resign(ctx))
}

func TestSTM(t *testing.T) {
	client, ctx := connect(t)
	for i, isolation := range []concurrency.Isolation{concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads} {
		from, to := fmt.Sprintf("stm/%d/from", i), fmt.Sprintf("stm/%d/to", i)
		_, err := client.Put(ctx, from, "xxxxxxxx")
		must(t, err)
		_, err = client.Put(ctx, to, "")
		must(t, err)
		var all sync.WaitGroup
		for range 8 {
			all.Add(1)
			go func() {
				defer all.Done()
				_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
					left := stm.Get(from)
					stm.Put(from, left[1:])
					stm.Put(to, stm.Get(to)+left[:1])
					return nil
				}, concurrency.WithIsolation(isolation), concurrency.WithAbortContext(ctx))
				if err != nil {
					t.Error(err)
				}
			}()
		}
		all.Wait()
		moved, err := client.Get(ctx, to)
		must(t, err)
		same(t, string(moved.Kvs[0].Value), "xxxxxxxx")
	}
}

func TestQueues(t *testing.T) {
	client, _ := connect(t)
	queue := recipe.NewQueue(client, "queue")
	for _, value := range []string{"a", "b"} {
		must(t, queue.Enqueue(value))
	}
	first, err := queue.Dequeue()
	must(t, err)
	second, err := queue.Dequeue()
	must(t, err)
	same(t, first+second, "ab")
	urgent := recipe.NewPriorityQueue(client, "priorities")
	must(t, urgent.Enqueue("late", 2))
	must(t, urgent.Enqueue("early", 1))
	next, err := urgent.Dequeue()
	must(t, err)
	same(t, next, "early")
}

func TestBarriers(t *testing.T) {
	client, _ := connect(t)
	barrier := recipe.NewBarrier(client, "barrier")
	must(t, barrier.Hold())
	passed := make(chan error)
	go func() { passed <- recipe.NewBarrier(client, "barrier").Wait() }()
	must(t, barrier.Release())
	must(t, <-passed)
	double := func() { passed <- recipe.NewDoubleBarrier(session(t, client), "double", 2).Enter() }
	go double()
	go double()
	must(t, <-passed)
	must(t, <-passed)
}

func TestReadWriteMutex(t *testing.T) {
	client, _ := connect(t)
	reader, other := recipe.NewRWMutex(session(t, client), "rw"), recipe.NewRWMutex(session(t, client), "rw")
	must(t, reader.RLock())
	must(t, other.RLock())
	writer, granted := recipe.NewRWMutex(session(t, client), "rw"), make(chan error)
	go func() { granted <- writer.Lock() }()
	must(t, reader.RUnlock())
	must(t, other.RUnlock())
	must(t, <-granted)
	must(t, writer.Unlock())
}

// A gRPC client that finds its servers by etcd's resolver: here they are the members themselves.
func TestResolver(t *testing.T) {
	client, ctx := connect(t)
	manager, err := endpoints.NewManager(client, "naming/service")
	must(t, err)
	watched, err := manager.NewWatchChannel(ctx)
	must(t, err)
	target := client.Endpoints()[0][len("http://"):]
	must(t, manager.AddEndpoint(ctx, "naming/service/1", endpoints.Endpoint{Addr: target, Metadata: "one"}))
	for len(<-watched) == 0 {
	}
	listed, err := manager.List(ctx)
	must(t, err)
	same(t, listed["naming/service/1"].Addr, target)
	callThrough(t, client, ctx, "naming/service")
	must(t, manager.DeleteEndpoint(ctx, "naming/service/1"))
}

// Whoever the stock resolver finds below that name answers.
func callThrough(t *testing.T, client *clientv3.Client, ctx context.Context, name string) {
	t.Helper()
	builder, err := resolver.NewBuilder(client)
	must(t, err)
	connection, err := grpc.NewClient("etcd:///"+name, grpc.WithResolvers(builder), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer connection.Close()
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err = pb.NewClusterClient(connection).MemberList(short, &pb.MemberListRequest{}, grpc.WaitForReady(true))
	must(t, err)
}

// The same resolver finds who registered at the server itself, once an operator has said where; and not who is taken out.
func TestResolverFindsRegistered(t *testing.T) {
	client, ctx := connect(t)
	member := client.Endpoints()[0]
	call := func(verb, body string) int {
		answer, err := http.Post(member+"/v1/registry/"+verb, "application/json", strings.NewReader(body))
		must(t, err)
		defer answer.Body.Close()
		return answer.StatusCode
	}
	into := `{"service": "registered", "policy": {"projections": [{"naming": {"target": "services/registered"}}]}}`
	if call("set-policy", into) == http.StatusNotFound {
		t.Skip("there is no registry")
	}
	host, port, err := net.SplitHostPort(member[len("http://"):])
	must(t, err)
	registration := `{"registration": {"service": "registered", "id": "1", "incarnation": 1, "ttl_s": 600, "endpoints": [{"host": %q, "port": %s}]}}`
	same(t, call("register", fmt.Sprintf(registration, host, port)), http.StatusOK)

	callThrough(t, client, ctx, "services/registered")

	manager, err := endpoints.NewManager(client, "services/registered")
	must(t, err)
	watched, err := manager.NewWatchChannel(ctx)
	must(t, err)
	same(t, (<-watched)[0].Endpoint.Addr, member[len("http://"):])
	same(t, call("set-instance", `{"service": "registered", "id": "1", "maintenance": true}`), http.StatusOK)
	same(t, (<-watched)[0].Op, endpoints.Delete)
	same(t, call("set-instance", `{"service": "registered", "id": "1", "maintenance": false}`), http.StatusOK)
	same(t, (<-watched)[0].Op, endpoints.Add)
}
