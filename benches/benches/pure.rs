//! How long the pure parts take.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use stream_events_bench::pure::{Place, body, decode, encode, message, read_all};

fn pure(criterion: &mut Criterion) {
    for size in [200, 1_024] {
        let (message, body) = (message(size), body(size));
        let mut group = criterion.benchmark_group(format!("{size}B"));
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function("encode", |bencher| {
            bencher.iter_batched(|| message.clone(), encode, BatchSize::SmallInput);
        });
        group.bench_function("decode", |bencher| bencher.iter(|| decode(&body)));
        let mut place = Place::with(2_000);
        group.bench_function("publish", |bencher| {
            let publish = |message| place.publish(message);
            bencher.iter_batched(|| message.clone(), publish, BatchSize::SmallInput);
        });
        group.finish();
    }
    let place = Place::with(100);
    let mut group = criterion.benchmark_group("hub");
    group.throughput(Throughput::Elements(100));
    group.bench_function("read 100 events", |bencher| {
        bencher.iter_batched_ref(|| place.reader(), read_all, BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(benches, pure);
criterion_main!(benches);
