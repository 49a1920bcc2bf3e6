// Stands in line by etcd's Go package `concurrency`, for a lock or an election: says its key when it has it, and gives it back
// when told a line. Arguments: ENDPOINT lock|elect NAME.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func main() {
	ctx := context.Background()
	client, err := clientv3.New(clientv3.Config{Endpoints: os.Args[1:2]})
	check(err)
	session, err := concurrency.NewSession(client)
	check(err)
	defer session.Close()
	if os.Args[2] == "lock" {
		mutex := concurrency.NewMutex(session, os.Args[3])
		check(mutex.Lock(ctx))
		hold(mutex.Key())
		check(mutex.Unlock(ctx))
	} else {
		election := concurrency.NewElection(session, os.Args[3])
		check(election.Campaign(ctx, "go"))
		hold(election.Key())
		check(election.Resign(ctx))
	}
}

func hold(key string) {
	fmt.Println(key)
	bufio.NewReader(os.Stdin).ReadString('\n')
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
